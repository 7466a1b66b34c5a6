"""Reads the run folders that `training_scripts.toy.experiments` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from training_scripts.toy.recipes import EXPERIMENTS
from veason.toy.noisy_teacher import COMPARISON
from verl.trainer.run_log import read_metrics

Curve = list[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class ToyRun:
    """One run.

    Attributes:
        name: its key in EXPERIMENTS.
        stages: seconds and machine per finished stage.
        command: the training command; None for the evaluation of the initial policy.
        rows: the training's metrics.jsonl.
        scores: column -> percent of the evaluation's table; None where it was not evaluated.
        answers: see `read_answers`.
    """

    name: str
    stages: dict[str, dict[str, Any]]
    command: str | None
    rows: list[dict[str, Any]]
    scores: dict[str, float | None] | None
    answers: dict[str, dict[str, float]] = field(default_factory=dict)

    def curve(self, key: str) -> Curve:
        """A metric over the steps that have it."""
        return [(row["step"], row[key]) for row in self.rows if key in row]


def read_runs(output: Path) -> list[ToyRun]:
    """The runs of a folder, by name and seed."""
    folders = [folder for folder in sorted(output.iterdir()) if experiment_name(folder) in EXPERIMENTS]
    return [read_run(folder) for folder in folders]


def experiment_name(folder: Path) -> str:
    """The experiment of a run's folder, `<name>` or `<name>-<seed>`."""
    return folder.name.rpartition("-")[0] or folder.name


def read_run(folder: Path) -> ToyRun:
    """One run, as far as it has got."""
    log, stages, table = folder / "train.log", folder / "stages.json", folder / "eval" / "metrics.json"
    evaluated = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else None
    return ToyRun(
        name=experiment_name(folder),
        stages=json.loads(stages.read_text()) if stages.is_file() else {},
        command=log.read_text(errors="replace").splitlines()[0] if log.is_file() else None,
        rows=read_metrics(folder / "train") if (folder / "train" / "metrics.jsonl").is_file() else [],
        scores={column: cell["value"] for column, cell in evaluated["table"].items()} if evaluated else None,
        answers=read_answers(folder / "eval", evaluated["samples"]) if evaluated else {},
    )


def read_answers(evaluation: Path, samples: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per kind of expression the mean `JF`, and the rates of answers `without_box` and with `extra_box` (too many)."""
    scores = {sample["sample_id"]: sample["JF"] for sample in samples}
    found: dict[str, list[tuple[float, bool, bool]]] = {}
    _header, *lines = (evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for record in map(json.loads, lines):
        boxes = len(record["boxes"] or ())
        answer = (scores[record["sample_id"]], boxes == 0, boxes > record["num_objects"])
        kind = expression_kind(record["type_id"], record["num_objects"], record["expression"])
        found.setdefault(kind, []).append(answer)
    names = ("JF", "without_box", "extra_box")
    return {kind: dict(zip(names, map(fmean, zip(*rows)))) for kind, rows in found.items()}


def expression_kind(type_id: int, targets: int, expression: str) -> str:
    """`comparison`, `single`, `several`, `referring` or `absent`: what the noisy teacher's errors depend on."""
    if type_id != 1:
        return "absent" if type_id == 2 else "referring"
    if targets != 1:
        return "several"
    return "comparison" if COMPARISON.search(expression) else "single"
