"""Waits until all hosts have joined the Ray cluster of RAY_ADDRESS; for the launchers on several hosts.

    python -m training_scripts.wait_for_hosts 1
    python -m training_scripts.wait_for_hosts 2 node1=PID node2=PID

PID is the process of this host that runs Ray on the other one: once it has ended, the host will not join.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence

from veason.command_line import HelpFormatter

LIMIT = 300.0  # seconds
PERIOD = 1.0


def wait_for_hosts(wanted: int, pids: Mapping[str, int], limit: float = LIMIT, period: float = PERIOD) -> str | None:
    """What is missing, in one line, or None once all hosts are there.

    Args:
        pids: name of a host -> process on this one that ends when Ray on that host has ended.
        limit: seconds.
        period: seconds between two looks.
    """
    address, deadline, found = os.environ["RAY_ADDRESS"], time.monotonic() + limit, 0
    while True:
        if ended := [name for name, pid in pids.items() if not _runs(pid)]:
            return f"Ray has ended on {', '.join(ended)}, see the lines above: {address} is not complete"
        if found or _answers(address, period):  # Ray itself would look for its head for minutes
            found = _joined()
        if found >= wanted:
            return None
        if time.monotonic() > deadline:
            return f"{found} of {wanted} hosts joined Ray at {address} within {limit:.0f} s"
        time.sleep(period)


def _answers(address: str, timeout: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError:
        return False
    return True


def _joined() -> int:
    """Hosts of the cluster. Raises ClusterError, such as for a wrong token."""
    import ray

    from verl.single_controller import connect_ray

    connect_ray(workers=0)
    return sum(node["Alive"] for node in ray.nodes())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("wanted", type=int, help="hosts of the cluster")
    parser.add_argument("hosts", nargs="*", metavar="NAME=PID", help="a host, and the process that runs Ray on it")
    given = parser.parse_args(arguments)
    pids = {name: int(pid) for name, _, pid in (word.rpartition("=") for word in given.hosts)}
    from verl.single_controller import ClusterError

    try:
        missing = wait_for_hosts(given.wanted, pids)
    except ClusterError as error:
        missing = str(error)
    if missing:
        print(missing, file=sys.stderr)
    return int(missing is not None)


if __name__ == "__main__":
    sys.exit(main())
