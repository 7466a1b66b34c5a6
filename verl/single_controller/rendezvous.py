"""The rendezvous of a worker group: a torch store on rank 0, at an address that nobody else can take meanwhile."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore

LISTEN_FD = "MASTER_LISTEN_FD"  # on rank 0, the descriptor of the open socket at MASTER_ADDR:MASTER_PORT


def listen(host: str) -> socket.socket:
    """A socket that listens at a free port of this one address of the machine, IPv4 or IPv6."""
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def open_store(rank: int, world: int) -> TCPStore:
    """The store at MASTER_ADDR:MASTER_PORT, served by rank 0.

    Rank 0 serves it at the socket LISTEN_FD where that is set; else at the port on every address of the machine, as
    torch's env:// does.
    """
    from torch.distributed import TCPStore  # RemoteWorker is there before torch is imported

    descriptor = os.environ.pop(LISTEN_FD, None)
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world,
        is_master=rank == 0,
        master_listen_fd=None if descriptor is None else int(descriptor),
    )
