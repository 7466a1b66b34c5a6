"""A process beside the driver that ends the remaining processes of its Ray cluster after the driver was killed.

The kernel ends GCS and raylet with the driver, and Ray ends the workers in seconds. But the raylet's agents then report
its end to the GCS, which is gone too, and wait 60 s for an answer (ray 2.60 `_private/utils.py`,
`publish_error_to_driver`); and what a worker has started may not end at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK_VARIABLE = "VERL_CLUSTER"  # in the environment of every process of the cluster
PERIOD = 0.5  # seconds between two looks
GRACE = 5.0  # seconds in which Ray's processes end by themselves
_watched: tuple[int, str] | None = None  # this process and its mark


def watch_driver() -> str:
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
    """Waits for the end of the driver, this process's parent, and kills what carries its mark `grace` seconds later."""
    while os.getppid() == driver:
        time.sleep(PERIOD)
    deadline = time.monotonic() + grace
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(PERIOD)
    for pid in left:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def marked_processes(mark: str) -> list[int]:
    """The processes with this mark in their environment; none where there is no /proc."""
    wanted, found = f"{MARK_VARIABLE}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # of another user, or just gone
            continue
    return found


if __name__ == "__main__":
    wait_and_clean(int(sys.argv[1]), sys.argv[2])
