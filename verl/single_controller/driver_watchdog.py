"""A process beside the driver that ends the remaining processes of its Ray cluster after the driver was killed.

The kernel ends GCS and raylet with the driver, and Ray ends the workers in seconds. But the raylet's agents then report
its end to the GCS, which is gone too, and wait 60 s for an answer (ray 2.60 `_private/utils.py`,
`publish_error_to_driver`); and what a worker has started may not end at all.

Ray's processes carry a mark in their environment. The agents write their titles over theirs, so processes are also
known by what has started them, which is looked up while that is alive.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK_VARIABLE = "VERL_CLUSTER"  # in the environment of every process of the cluster
PERIOD = 0.5  # seconds between two looks at the driver
SEARCH_PERIOD = 5.0  # seconds between two searches for processes of the cluster
GRACE = 5.0  # seconds in which Ray's processes end by themselves
_watched: tuple[int, str] | None = None  # this process and its mark


def start_driver_watchdog() -> str:
    """Starts the process for this driver, once; it ends after the driver, however that ends.

    Returns:
        The value of `MARK_VARIABLE` for the processes that are to end with the driver.
    """
    global _watched
    if _watched is None or _watched[0] != os.getpid():  # not in a fork of a driver
        _watched = os.getpid(), uuid.uuid4().hex
        command = [sys.executable, "-I", __file__, *map(str, _watched)]
        # in a session of its own: Ctrl-C is not for it; with no output, which would keep the driver's pipes open
        null = subprocess.DEVNULL
        subprocess.Popen(command, start_new_session=True, stdin=null, stdout=null, stderr=null)
    return _watched[1]


def wait_and_clean(driver: int, mark: str, grace: float = GRACE) -> None:
    """Waits for the end of the driver, this process's parent, and `grace` seconds later kills the remaining processes
    of its cluster.
    """
    known: dict[int, str] = {}
    searched = -SEARCH_PERIOD
    while os.getppid() == driver:
        if time.monotonic() - searched >= SEARCH_PERIOD:
            known, searched = find_processes(mark, known), time.monotonic()
        time.sleep(PERIOD)
    deadline = time.monotonic() + grace
    while (known := find_processes(mark, known)) and time.monotonic() < deadline:
        time.sleep(PERIOD)
    for pid in known:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def find_processes(mark: str, known: dict[int, str]) -> dict[int, str]:
    """The processes of a cluster, pid -> time of its start: those with this mark in their environment, those that were
    known and still run, and all that these have started. None where there is no /proc.
    """
    running = _running_processes()
    found = {pid for pid, start in known.items() if pid in running and running[pid][1] == start}
    found |= {pid for pid in running if _is_marked(pid, mark)}
    while more := {pid for pid, (parent, _) in running.items() if parent in found and pid not in found}:
        found |= more
    return {pid: running[pid][1] for pid in found}


def _running_processes() -> dict[int, tuple[int, str]]:
    """pid -> pid of its parent and time of its start, without zombies."""
    processes = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:  # fields of proc(5) behind the name in brackets: state, parent, ..., start time is the 22nd of all
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # just gone
            continue
        if fields[0] != "Z":
            processes[int(path.parent.name)] = int(fields[1]), fields[19]
    return processes


def _is_marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK_VARIABLE}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # of another user, or just gone
        return False


if __name__ == "__main__":
    wait_and_clean(int(sys.argv[1]), sys.argv[2])
