"""Processes that tests start: they are forked from one that has imported the heavy libraries once; free ports."""

from __future__ import annotations

import multiprocessing
import random
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

# By the server, which runs one thread. vLLM is not among them: it changes the process that imports it.
PRELOADED = [
    "tests.verl.workers.elastic_ranks",
    "tests.data_mutations.consumers",
    "tests.data_mutations.catalogue",
    "tests.data_mutations.sets",
]
FIRST_PORT = 20_000  # above those of Ray's workers
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def fork_context() -> ForkServerContext:
    """Makes processes that have the modules of `PRELOADED`, and nothing that tests have done to this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_ranks(main: Callable[..., None], args: tuple, count: int = 1) -> None:
    """Runs main(rank, *args) in `count` processes. Raises the first error of one, after the others are ended."""
    import torch.multiprocessing as mp

    fork_context()
    mp.start_processes(main, args=args, nprocs=count, start_method="forkserver")


def lone_rank(port: int) -> dict[str, str]:
    """The environment of the only rank of a process group, at this port."""
    return {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_port() -> int:
    """A free port of this machine below those that the kernel gives to connections and to port 0: until the ranks have
    been started, nothing else on the machine is given it.
    """
    last = max(int(PORT_RANGE.read_text().split()[0]), FIRST_PORT + 10_000)  # the kernel's may begin at 1024
    draw = random.SystemRandom()  # not the seeded generator, which two processes of tests may share
    while True:
        port = draw.randrange(FIRST_PORT, last)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:  # taken
                continue
        return port
