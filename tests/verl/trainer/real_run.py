"""A real training run of the toy world in a process of its own, which the soak tests disturb."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from verl.trainer.run_log import read_metrics

ROOT = Path(__file__).parents[3]
COMMON = "trainer.save_freq=2 trainer.save_limit=-1 trainer.test_freq=-1 trainer.total_episodes=1000"
SFT = f"""
    verl.trainer.sft config=configs/toy/sft_demo.yaml data.rollout_batch_size=4 worker.actor.global_batch_size=4
    worker.actor.model.lora_rank=4 sft.val_ratio=0 {COMMON}
"""
GRPO = f"""
    verl.trainer.main config=configs/toy/demo.yaml worker.reward.compute_score=letters_rule:RULE
    worker.reward.sam2_config=null worker.rollout.n=3 data.rollout_batch_size=2 worker.actor.global_batch_size=2
    data.max_response_length=12 data.val_files=null trainer.log_rollouts_freq=-1 {COMMON}
"""
MACHINE = ("timing_s/", "perf/", "memory/", "ray/")  # metrics of the machine


class RealRun:
    """Starts a run; a context manager that leaves no process behind.

    Args:
        program: SFT or GRPO.
        toy: folder of the toy world and the policy (the fixture `toy`).
        folder: of the run.
        prefix: a command that starts another one.
    """

    def __init__(self, program: str, toy: Path, folder: Path, *more: str, prefix: Sequence[str] = ()) -> None:
        paths = [f"worker.actor.model.model_path={toy / 'policy'}", f"trainer.save_checkpoint_path={folder}"]
        env = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([f"{ROOT}", f"{Path(__file__).parent}", os.environ.get("PYTHONPATH", "")]),
            "DEMO_ROOT": str(toy),
            "RAY_memory_monitor_refresh_ms": "0",
        }
        command = [*prefix, sys.executable, "-m", *shlex.split(program), *paths, *more]
        self.folder, self.output = folder, Path(f"{folder}.txt")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=env)
        self.started: list[psutil.Process] = []

    def __enter__(self) -> RealRun:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.tree(), *self.started]:
            if process.is_running():
                process.kill()
        self.process.wait(30)

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, seconds: float = 900) -> None:
        """Until the run has written this."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text[-3000:]
            time.sleep(0.05)

    def tree(self) -> list[psutil.Process]:
        """Every process of the run; remembers them."""
        if self.process.poll() is None:
            parent = psutil.Process(self.process.pid)
            self.started = [parent, *parent.children(recursive=True)]
        return self.started

    def find(self, kind: str) -> psutil.Process:
        """One process: driver, worker, raylet or gcs_server."""
        tree = self.tree()
        if kind == "driver":
            return next(each for each in reversed(tree) if "verl.trainer" in " ".join(each.cmdline()))
        names = {"worker": "ray::RemoteWorker"}
        return next(each for each in tree if names.get(kind, kind) in (each.name(), *each.cmdline()[:1])[-1])

    def left(self, seconds: float = 15) -> list[psutil.Process]:
        """Processes that are still there some time after the end."""
        deadline = time.monotonic() + seconds
        while (alive := [each for each in self.started if runs(each)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive

    def steps(self) -> list[dict[str, Any]]:
        """The metrics, less those of the machine."""
        rows = read_metrics(self.folder)
        return [{name: value for name, value in row.items() if not name.startswith(MACHINE)} for row in rows]


def runs(process: psutil.Process) -> bool:
    """Whether it is there, and no zombie that its parent has not waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def segments(kinds: Sequence[str] = ("verl", "psm_", "torch_", "cpushm")) -> set[str]:
    """Shared memory that a run could leave."""
    return {path.name for path in Path("/dev/shm").iterdir() if any(kind in path.name for kind in kinds)}
