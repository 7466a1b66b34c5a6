"""trainer.max_restarts: a run whose driver or workers died is started again from its newest complete checkpoint."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

EXIT_WORKERS_DIED = (
    75  # exit status of a run whose workers or Ray cluster died or hang, EX_TEMPFAIL: it can be started again
)
RESTARTS_HANDLED = "VERL_RESTARTS_HANDLED"  # set for the run that is watched
PAUSE = 2.0  # seconds in which what belongs to a dead run ends by itself


def run_with_restarts(command: Sequence[str], restarts: int) -> int:
    """Runs the command, and again with trainer.resume_mode=auto after each death; returns its last exit status.

    The run is in a session of its own, so that Ctrl-C reaches it alone and not Ray's processes: signals are handed on.
    A run that ended for a reason that would come again, such as a wrong key, is not repeated.
    """
    for attempt in range(restarts + 1):
        resume = ["trainer.resume_mode=auto"] if attempt else []
        status, stopped = _run([*command, *resume])
        died = status == EXIT_WORKERS_DIED or (status < 0 and not stopped)
        if not died or attempt == restarts:
            return status if status >= 0 else 128 - status
        how = (
            "its workers died"
            if status == EXIT_WORKERS_DIED
            else f"its driver was ended by {signal.Signals(-status).name}"
        )
        print(f"restart {attempt + 1} of trainer.max_restarts={restarts}: {how}", file=sys.stderr, flush=True)
    raise AssertionError("unreachable")


def _run(command: Sequence[str]) -> tuple[int, bool]:
    """The exit status, negative for a signal, and whether the run was asked to stop."""
    stopped = []
    environment = os.environ | {RESTARTS_HANDLED: "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_end_with_parent)

    def forward(number: int, _: object) -> None:
        stopped.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end_session(process.pid)
    return status, bool(stopped)


def _end_with_parent() -> None:
    """In the run's process: if the supervisor is killed, it gets SIGTERM, saves and ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end_session(session: int) -> None:
    """Ends the remaining processes of a run that was killed."""
    deadline = time.monotonic() + PAUSE
    while (left := _session(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=PAUSE)


def _session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
