"""Runs jobs beside each other on the GPUs of a machine, or on its cores, until they are done or the time is up.

A job is a row of stages, each a command in processes of its own. A stage whose product is there is not run again, so
the same call goes on where an earlier one was stopped. One loop watches all of them; nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL = 0.2  # seconds between two looks at the processes
APART = 1.0  # seconds between two starts, so that they do not look for free ports at the same moment
GRACE = 8.0  # seconds in which stages that were told to end may do so
SHOWN = 12  # last lines of a failed stage's log


@dataclass(frozen=True)
class Stage:
    """A command, and the file that is there once it has succeeded."""

    name: str
    command: Sequence[str]
    product: Path


@dataclass
class Job:
    """Stages in their order, with their logs and `stages.json` in `folder`.

    Attributes:
        machine: that this call runs on, in words.
        state: waiting, running, done, failed, or stopped (the time was up).
        ended: of each stage that has ended well, also in an earlier call, `seconds` and `machine`.
    """

    name: str
    folder: Path
    stages: Sequence[Stage]
    machine: str = ""
    state: str = "waiting"
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.folder / "stages.json"
        self.ended = json.loads(kept.read_text()) if kept.is_file() else {}

    def left(self) -> list[Stage]:
        """The stages whose product is missing, and all that come after the first of them."""
        missing = [number for number, stage in enumerate(self.stages) if not stage.product.exists()]
        return list(self.stages[missing[0] :]) if missing else []

    def note(self, stage: Stage, seconds: float) -> None:
        """Keeps how long a stage took, and where."""
        self.ended[stage.name] = {"seconds": round(seconds, 1), "machine": self.machine}
        (self.folder / "stages.json").write_text(json.dumps(self.ended))


@dataclass
class _Running:
    job: Job
    stages: list[Stage]  # the first is at work
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]
    started: float

    @classmethod
    def start(cls, job: Job, stages: list[Stage], env: Mapping[str, str]) -> _Running:
        stage = stages[0]
        with (job.folder / f"{stage.name}.log").open("wb") as log:
            log.write(f"{' '.join(stage.command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                stage.command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **env}, start_new_session=True
            )
        job.state = "running"
        return cls(job, stages, env, process, time.monotonic())

    def signal(self, number: int) -> None:
        """Sends a signal to the stage and to everything that it has started."""
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(self.process.pid, number)


def run_jobs(jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], seconds: float) -> None:
    """Runs jobs in their order, one a slot at a time, for at most `seconds`. Says what becomes of each; a failed one
    stops no other.

    Args:
        slots: environment variables of each place, such as the GPU it is on.
    """
    start = time.monotonic()
    free, running, waiting = list(range(len(slots))), dict[int, _Running](), list(jobs)
    try:
        while waiting or running:
            if time.monotonic() - start > seconds:
                break
            while waiting and free:
                job = waiting.pop(0)
                stages = job.left()
                if not stages:
                    job.state = "done"
                    _tell(start, job, "was done before")
                    continue
                slot = free.pop(0)
                running[slot] = _Running.start(job, stages, slots[slot])
                time.sleep(APART)
            for slot in [slot for slot, work in running.items() if work.process.poll() is not None]:
                following = _next(start, running.pop(slot))
                if following is None:
                    free.append(slot)
                else:
                    running[slot] = following
            time.sleep(POLL)
    finally:
        for work in running.values():
            work.signal(signal.SIGTERM)
            work.job.state = "stopped"
            _tell(start, work.job, f"was stopped in {work.stages[0].name}: the time was up")
        patience = time.monotonic() + GRACE
        while any(work.process.poll() is None for work in running.values()) and time.monotonic() < patience:
            time.sleep(POLL)
        for work in running.values():
            work.signal(signal.SIGKILL)


def _next(start: float, work: _Running) -> _Running | None:
    """What follows a stage that has ended: the job's next one, or nothing."""
    job, stage = work.job, work.stages[0]
    took = time.monotonic() - work.started
    if work.process.returncode or not stage.product.exists():
        job.state = "failed"
        last = (job.folder / f"{stage.name}.log").read_text(errors="replace").splitlines()[-SHOWN:]
        _tell(start, job, f"failed in {stage.name} (status {work.process.returncode}):\n    " + "\n    ".join(last))
        return None
    job.note(stage, took)
    _tell(start, job, f"{stage.name} done in {took:.0f} s")
    if len(work.stages) == 1:
        job.state = "done"
        return None
    return _Running.start(job, work.stages[1:], work.env)


def _tell(start: float, job: Job, what: str) -> None:
    print(f"[{time.monotonic() - start:6.1f} s] {job.name}: {what}", flush=True)
