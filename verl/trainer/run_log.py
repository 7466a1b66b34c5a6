"""The records of a run: metrics.jsonl, generations.jsonl and skipped.txt in its folder, and the loggers of
`trainer.logger`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl.config import Config
from verl.config.checks import LOGGERS
from verl.files import write_text
from verl.metric_types import Metrics
from verl.protocol import GroupResult
from verl.registry import resolve
from verl.trainer.loggers import Logger
from verl.trainer.plan import Plan
from verl.trainer.saved import CheckpointError

log = logging.getLogger(__name__)


class RunLog:
    """Writes metrics step by step. A context manager: loggers are closed at its end.

    Args:
        plan: rows of steps after its start, from before an interruption, are removed from the files, unless it only
            validates.

    Attributes:
        folder: trainer.save_checkpoint_path.
        skipped: sample id -> reason, of the samples that were left out.
    """

    def __init__(self, config: Config, plan: Plan) -> None:
        self.folder = Path(config.trainer.save_checkpoint_path or "")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.skipped: dict[str, str] = {}
        if not config.trainer.val_only:
            for name in ("metrics.jsonl", "generations.jsonl"):
                _remove_after(self.folder / name, plan.start)
        kinds = [resolve(name, LOGGERS, "logger") for name in config.trainer.logger]
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

    def generations(self, step: int, groups: Sequence[GroupResult]) -> None:
        """Keeps some answers with their scores: the first response of each group."""
        rows = [
            {
                "sample_id": group.sample_id,
                "response": group.responses[0],
                "total": group.totals[0],
                "failure": group.failures[0],
                **group.parts[0],
            }
            for group in groups
        ]
        for row in rows:
            _append(self.folder / "generations.jsonl", {"step": step} | row)
        for logger in self.loggers if rows else ():
            logger.generations(step, rows)

    def record_skipped(self, samples: dict[str, str]) -> None:
        """Keeps the names and reasons of samples that were left out in skipped.txt, which data.exclude takes."""
        if samples != self.skipped:
            lines = (f"{name}  # {reason}\n" for name, reason in sorted(samples.items()))
            write_text(self.folder / "skipped.txt", "".join(lines))
            self.skipped = samples

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        for logger in self.loggers:
            logger.close()


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, in order of their steps."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


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
    write_text(path, "".join(kept))
