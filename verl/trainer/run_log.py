"""The records of a run in its folder, and the loggers of `trainer.logger`.

run.json                 what the run is, its configuration and versions (`verl.trainer.run_info`)
metrics.jsonl            a row per step
histograms.jsonl         a row per step: rewards, lengths, advantages
val_generations.jsonl    validation answers, as many as trainer.val_generations_to_log_to_wandb
rollouts/step_N.jsonl    a row per response of some groups, with pictures in rollouts/step_N (trainer.log_rollouts_freq)
skipped.txt              samples that were left out, which data.exclude takes
logs/                    messages of libraries: driver.log, rank_N.log
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from verl.atomic_files import write_text_atomically
from verl.config import Config
from verl.config.name_checks import LOGGERS
from verl.metric_types import Metrics, Progress
from verl.protocol import GroupResult
from verl.registry import load_by_name
from verl.trainer.checkpoint_folders import CheckpointError
from verl.trainer.loggers import Logger
from verl.trainer.rollout_log import histogram
from verl.trainer.run_info import RUN_FILE, RunInfo
from verl.trainer.run_plan import RunPlan

log = logging.getLogger(__name__)


class RunLog:
    """Writes metrics step by step. A context manager: loggers are closed at its end.

    Args:
        plan: rows of steps after its start, from before an interruption, are removed from the files, unless it only
            validates.
        program: "GRPO" or "SFT".

    Attributes:
        folder: trainer.save_checkpoint_path.
        skipped_samples: sample id -> reason, of the samples that were left out.
    """

    def __init__(self, config: Config, plan: RunPlan, program: str = "GRPO") -> None:
        self.folder = Path(config.trainer.save_checkpoint_path or "")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.skipped_samples: dict[str, str] = {}
        if not config.trainer.val_only:
            for name in ("metrics.jsonl", "histograms.jsonl", "val_generations.jsonl"):
                _remove_after(self.folder / name, plan.start_step)
            _remove_rollouts_after(self.folder / "rollouts", plan.start_step)
        if not (config.trainer.val_only and (self.folder / RUN_FILE).is_file()):
            RunInfo.begin(self.folder, program, asdict(config), plan.start_step, plan.steps)
        kinds = [load_by_name(name, LOGGERS, "logger") for name in config.trainer.logger]
        self.loggers: list[Logger] = [kind(self.folder, config, plan.steps) for kind in kinds]

    def metrics(self, step: int, metrics: Metrics) -> None:
        """Writes the metrics of one step everywhere."""
        metrics = {name: float(value) for name, value in metrics.items()}
        _append(self.folder / "metrics.jsonl", {"step": step} | metrics)
        for logger in self.loggers:
            logger.metrics(step, metrics)

    def restore(self, checkpoint: Path, state: dict[str, Any]) -> None:
        """Writes the metrics of a checkpoint of this folder's own, where the run ended before it had logged them."""
        path, step = self.folder / "metrics.jsonl", state["step"]
        rows = read_metrics(self.folder) if path.is_file() else []
        if checkpoint.parent == self.folder.resolve() and not any(row["step"] == step for row in rows):
            self.metrics(step, state["metrics"])

    def val_generations(self, step: int, groups: Sequence[GroupResult]) -> None:
        """Keeps some answers with their scores: the first response of each group."""
        rows = [
            {
                "sample_id": group.sample_id,
                "response": group.responses[0],
                "total": group.scores[0],
                "failure": group.parse_failures[0],
                **group.parts[0],
            }
            for group in groups
        ]
        for row in rows:
            _append(self.folder / "val_generations.jsonl", {"step": step} | row)
        for logger in self.loggers if rows else ():
            logger.val_generations(step, rows)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Keeps the distributions of a step's values."""
        if not values:
            return
        row = {name: histogram(numbers) for name, numbers in values.items()}
        _append(self.folder / "histograms.jsonl", {"step": step} | row)
        for logger in self.loggers:
            logger.histograms(step, values)

    def rollout_folder(self, step: int) -> Path:
        """Where the pictures of a step's rollouts are."""
        return self.folder / "rollouts" / f"step_{step}"

    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Keeps rows of `verl.trainer.rollout_log.rollout_rows`, whose pictures are in `rollout_folder`; rows of the
        same step and phase that are there are replaced.
        """
        if not rows:
            return
        path, pictures = self.rollout_folder(step).with_suffix(".jsonl"), self.rollout_folder(step)
        path.parent.mkdir(exist_ok=True)
        earlier = _read_rows(path) if path.is_file() else []
        kept = [row for row in earlier if row["phase"] != rows[0]["phase"]]
        relative = [
            row | {"pictures": {name: f"{pictures.name}/{file}" for name, file in row["pictures"].items()}}
            for row in rows
        ]
        write_text_atomically(path, "".join(json.dumps(row) + "\n" for row in [*kept, *relative]))
        absolute = [
            row | {"pictures": {name: str(pictures / file) for name, file in row["pictures"].items()}} for row in rows
        ]
        for logger in self.loggers:
            logger.rollouts(step, absolute)

    def show_progress(self, progress: Progress) -> None:
        """Shows how far the phases under way are."""
        for logger in self.loggers:
            logger.show_progress(progress)

    def begin(self, device: str, workers: int) -> None:
        """The workers have started: keeps on what the run computes."""
        info = RunInfo.read(self.folder)
        info.device, info.workers = device, workers
        info.write(self.folder)
        for logger in self.loggers:
            logger.begin()

    def record_skipped_samples(self, samples: dict[str, str]) -> None:
        """Keeps the names and reasons of samples that were left out in skipped.txt, which data.exclude takes."""
        if samples != self.skipped_samples:
            lines = (f"{name}  # {reason}\n" for name, reason in sorted(samples.items()))
            write_text_atomically(self.folder / "skipped.txt", "".join(lines))
            self.skipped_samples = samples

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        for logger in self.loggers:
            logger.close()


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, in order of their steps."""
    return _read_rows(Path(folder) / "metrics.jsonl")


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _append(path: Path, row: dict[str, Any]) -> None:
    """To the disk. Raises CheckpointError where it is full."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}; the checkpoints are whole") from error


def _remove_after(path: Path, step: int) -> None:
    """Removes rows after `step`, and a last line that an interruption cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            log.warning("%s: removed a line that was cut short", path)
            continue
        if row["step"] <= step:
            kept.append(f"{line}\n")
    write_text_atomically(path, "".join(kept))


def _remove_rollouts_after(folder: Path, step: int) -> None:
    for path in folder.glob("step_*.jsonl"):
        if int(re.sub(r"\D", "", path.stem)) > step:
            path.unlink()
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
