"""Ports for process groups that a test starts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST = 20_000  # above those of Ray's workers
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A free port of this machine below those that the kernel gives to connections and to port 0: until the group's
    ranks have been started, nothing else on the machine is given it.
    """
    last = int(RANGE.read_text().split()[0])
    draw = random.SystemRandom()  # not the seeded generator, which two processes of tests may share
    while True:
        port = draw.randrange(FIRST, last)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:  # taken
                continue
        return port
