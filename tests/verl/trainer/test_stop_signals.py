"""Signals and restarts, without workers."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recording_backend import RecordingBackend
from test_loops import loop_of

from verl.config import Config, override
from verl.trainer.checkpoint_folders import saved_checkpoints
from verl.trainer.grpo import GRPO
from verl.trainer.restarts import EXIT_WORKERS_DIED, run_with_restarts
from verl.trainer.run_log import read_metrics
from verl.trainer.sft import SFT
from verl.trainer.stop_signals import StoppedBySignal, StopSignals
from verl.trainer.training_loop import TrainingLoop


class Signalled(RecordingBackend):
    """Sends signals to this process during its update number `at`, counted from 0."""

    def __init__(self, *signals: signal.Signals, at: int) -> None:
        super().__init__()
        self.signals, self.at = signals, at

    def _send(self) -> None:
        for number in self.signals if len(self.updates()) == self.at else ():
            os.kill(os.getpid(), number)

    def update(self, advantages: Any) -> Any:
        self._send()
        return super().update(advantages)

    def fine_tune(self, batches: Any) -> Any:
        if sum(call[0] == "fine_tune" for call in self.calls) == self.at:
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().fine_tune(batches)


@pytest.mark.parametrize("kind", [GRPO, SFT])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_and_saves_the_step(
    kind: type[TrainingLoop], number: signal.Signals, status: int, config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = RecordingBackend()
    elsewhere = {"trainer.save_checkpoint_path": f"{config.trainer.save_checkpoint_path}_whole"}
    loop_of(kind, override(config, elsewhere), whole).fit()
    before = signal.getsignal(number)
    with pytest.raises(StoppedBySignal, match=f"{number.name}: step 3 is saved") as caught, StopSignals() as stop:
        loop_of(kind, config, Signalled(number, at=2)).fit(stop)
    assert caught.value.status == status and signal.getsignal(number) is before
    assert "this step is finished and saved" in capfd.readouterr().err
    folder = config.trainer.save_checkpoint_path
    assert list(saved_checkpoints(folder)) == [3] and [row["step"] for row in read_metrics(folder)] == [1, 2, 3]
    resumed = RecordingBackend()
    loop_of(kind, override(config, {"trainer.resume_mode": "auto"}), resumed).fit()
    assert resumed.weight == whole.weight and [row["step"] for row in read_metrics(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_second_signal_and_one_outside_the_steps_end_the_run_at_once(config: Config) -> None:
    with pytest.raises(StoppedBySignal, match="SIGINT: ended at once") as caught, StopSignals() as stop:
        loop_of(GRPO, config, Signalled(signal.SIGTERM, signal.SIGINT, at=1)).fit(stop)
    assert caught.value.status == 130 and saved_checkpoints(config.trainer.save_checkpoint_path) == {}
    with pytest.raises(StoppedBySignal, match="SIGTERM: ended at once"), StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_signal_in_the_last_step_ends_the_run_as_planned(config: Config) -> None:
    with StopSignals() as stop:
        loop_of(GRPO, config, Signalled(signal.SIGTERM, at=5)).fit(stop)
    assert list(saved_checkpoints(config.trainer.save_checkpoint_path)) == [6]


PROGRAM = """
import json, os, signal, sys, time
path, plan = sys.argv[1], json.loads(sys.argv[2])
runs = json.load(open(path)) if os.path.exists(path) else []
runs.append(sys.argv[3:])
json.dump(runs, open(path, "w"))
todo = plan[len(runs) - 1]
if todo == "leave":
    os.system("sleep 300 &")
    os.kill(os.getpid(), signal.SIGKILL)
if todo == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if todo == "stop":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(300)
sys.exit(todo)
"""


@pytest.mark.parametrize(
    ("plan", "restarts", "status", "runs"),
    [
        (["kill", EXIT_WORKERS_DIED, 0], 2, 0, 3),
        (["kill", EXIT_WORKERS_DIED, 0], 1, EXIT_WORKERS_DIED, 2),
        (["kill"], 0, 137, 1),
        ([1], 3, 1, 1),  # a wrong key does not become right
        (["stop"], 3, 143, 1),
        (["leave", 0], 1, 0, 2),
    ],
    ids=str,
)
def test_a_run_that_died_is_started_again(
    plan: list[Any], restarts: int, status: int, runs: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "runs.json"
    start = time.monotonic()
    command = [sys.executable, "-c", PROGRAM, str(record), json.dumps(plan), "trainer.max_steps=3"]
    assert run_with_restarts(command, restarts) == status
    first, again = ["trainer.max_steps=3"], ["trainer.max_steps=3", "trainer.resume_mode=auto"]
    assert json.loads(record.read_text()) == [first, *[again] * (runs - 1)]
    assert capfd.readouterr().err.count("restart ") == runs - 1
    assert time.monotonic() - start < 120  # what a run has left would go on for longer
