"""The page of a training run: summary, settings, curves, distributions, evaluations, rollouts over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from eval.evaluation_folder import PREDICTIONS, read_json_lines, read_run
from eval.report.charts import curve_charts, heat_maps, metric_series
from eval.report.evaluation_page import TEMPLATES, model_title, policy_title, read_table
from eval.report.rollout_history import read_prompt_histories
from eval.report.settings_diff import differing_settings, flatten, format_setting
from veason.errors import DataError
from veason.visualization.html_page import render_page
from verl.config import Config
from verl.trainer.run_info import RUN_FILE, RunInfo

NOT_COMPARED = ("save_checkpoint_path", "resume")  # keys of the trainer that do not change what a run computes
REWARD_KEYS = ("worker.reward.compute_score", "worker.reward.weights", "worker.reward.options")
SHARE = 0.1  # of the steps, whose mean is a run's first or last value
# metric -> (limit, whether above or below it is worth a look, what to do); limits as in docs/metrics.md
CHECKS = {
    "actor/kl": (0.1, "above", "the policy runs away from the reference"),
    "reward/frac_zero_std": (0.5, "above", "most groups give no signal"),
    "response/truncated": (0.02, "above", "answers are cut off: raise data.max_response_length"),
    "parse_failure/any": (0.2, "above", "many answers cannot be parsed"),
    "actor/entropy": (0.02, "below", "the policy hardly explores any more"),
    "reward/frac_nan": (0.0, "above", "scores could not be computed: see logs/"),
}


class TrainingRun:
    """A run's folder, read as far as it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = _read_rows(folder / "metrics.jsonl")
        self.info = RunInfo.read(folder) if (folder / RUN_FILE).is_file() else None
        if not self.rows:
            raise DataError(f"{folder / 'metrics.jsonl'} has no step yet")

    @property
    def name(self) -> str:
        """The folder's name, which tells two runs of one experiment apart."""
        return self.folder.resolve().name

    @property
    def config(self) -> dict[str, Any]:
        return self.info.config if self.info else {}

    @cached_property
    def histograms(self) -> list[dict[str, Any]]:
        return _read_rows(self.folder / "histograms.jsonl")

    def first_and_last(self, metric: str) -> tuple[float, float] | None:
        """The metric's mean over the first and over the last tenth of its steps."""
        _, values = metric_series(self.rows, metric)
        count = max(1, round(SHARE * len(values)))
        return (fmean(values[:count]), fmean(values[-count:])) if values else None


def training_page(
    run: Path, pictures: int, against: Path | None, evaluations: Sequence[Path] | None, page_folder: Path
) -> str:
    """The HTML of a run's report.

    Args:
        pictures: of rollouts, at most.
        against: another run.
        evaluations: folders of eval.evaluate; None: those below the run's folder.
        page_folder: where the page will be, for links to the evaluations' own pages.

    Raises:
        DataError: a run has no step, or an evaluation is none.
    """
    one, other = TrainingRun(run), TrainingRun(against) if against else None
    folders = evaluations or sorted({path.parent for path in run.rglob(PREDICTIONS)})
    found = [read_evaluation(path, page_folder) for path in folders]
    runs = {one.name: one.rows}
    if other:
        runs[other.name if other.name != one.name else str(against)] = other.rows
    defaults = dict(flatten(asdict(Config())))
    settings = [(key, format_setting(value)) for key, value in flatten(one.config)]
    changes = differing_settings(_comparable(one), _comparable(other)) if other else []
    return render_page(
        TEMPLATES,
        "training.html",
        title=one.name + (f" against {list(runs)[1]}" if other else ""),
        facts=facts(one),
        tiles=tiles(one, other),
        warnings=warnings(one) + reward_warnings(changes),
        changed=[
            (key, value) for key, value in settings if key not in defaults or format_setting(defaults[key]) != value
        ],
        settings=settings,
        versions=one.info.versions if one.info else {},
        changes=changes,
        names=list(runs),
        charts=curve_charts(runs),
        heat_maps=heat_maps(one.histograms),
        evaluations=found,
        columns=list(dict.fromkeys(name for each in found for name in each["table"])),
        prompts=read_prompt_histories(run, pictures),
        metrics_file=str(run / "metrics.jsonl"),
    )


def _comparable(run: TrainingRun) -> dict[str, Any]:
    """The settings that two runs are compared by, without those that say only where a run is."""
    trainer = {key: value for key, value in run.config.get("trainer", {}).items() if key not in NOT_COMPARED}
    return {**run.config, "trainer": trainer, "versions": run.info.versions if run.info else {}}


def reward_warnings(changes: Sequence[tuple[str, str, str]]) -> list[str]:
    """That rewards do not compare, where two runs differ in how they are computed."""
    keys = [key for key, _, _ in changes if key.startswith(REWARD_KEYS)]
    if not keys:
        return []
    return [f"The runs differ in {', '.join(keys)}: compare the parts of the reward, and an evaluation, not its total."]


def facts(run: TrainingRun) -> dict[str, str]:
    """What the run is, in a few words each."""
    steps = int(run.rows[-1]["step"])
    hours = sum(row.get("timing_s/step", 0.0) for row in run.rows) / 3600
    shown = {"steps": f"{steps}", "time in steps": f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"}
    if run.info:
        model = run.config.get("worker", {}).get("actor", {}).get("model", {}).get("model_path")
        shown["steps"] = f"{steps} of {run.info.steps}"
        shown |= {"program": run.info.program, "started": run.info.started, "policy": model_title(model or "-")}
        if run.info.device:
            shown["device"] = f"{run.info.workers} x {run.info.device}"
    return shown


def tiles(run: TrainingRun, other: TrainingRun | None) -> list[tuple[str, str, str]]:
    """The summary: (name, value, what is behind it)."""
    shown = []
    for metric, name, form in (
        ("reward/mean", "reward", "{:.2f}"),
        ("val/reward/mean", "validation reward", "{:.2f}"),
        ("loss", "loss", "{:.3f}"),
        ("val/loss", "validation loss", "{:.3f}"),
    ):
        if ends := run.first_and_last(metric):
            steps, values = metric_series(run.rows, metric)
            best = min(values) if "loss" in metric else max(values)
            behind = f"best {form.format(best)} at step {steps[values.index(best)]:.0f}"
            shown.append((name, " → ".join(form.format(value) for value in ends), behind + _other(other, metric, form)))
    for metric, name, form in (
        ("parse_failure/any", "failures", "{:.1%}"),
        ("response/mean", "tokens per response", "{:.0f}"),
        ("perf/tokens_per_second", "tokens/s", "{:.0f}"),
        ("timing_s/step", "seconds per step", "{:.1f}"),
    ):
        if ends := run.first_and_last(metric):
            shown.append((name, form.format(ends[1]), f"at first {form.format(ends[0])}{_other(other, metric, form)}"))
    memory = [value for row in run.rows for key, value in row.items() if key.startswith("memory/")]
    if memory:
        shown.append(("peak memory", f"{max(memory):.1f} GiB", "of a GPU, or of a worker on the CPU"))
    return shown


def _other(other: TrainingRun | None, metric: str, form: str) -> str:
    ends = other.first_and_last(metric) if other else None
    return f"; the other run {form.format(ends[1])}" if ends else ""


def warnings(run: TrainingRun) -> list[str]:
    """What is worth a look, by the last tenth of the steps."""
    found = []
    for metric, (limit, side, reason) in CHECKS.items():
        if (ends := run.first_and_last(metric)) and (ends[1] > limit if side == "above" else ends[1] < limit):
            found.append(f"{metric} is {ends[1]:.3g}, {side} {limit:g}: {reason}.")
    return found


def read_evaluation(folder: Path, page_folder: Path) -> dict[str, Any]:
    """Name, table and facts of an evaluation, and the way to its own page. Raises DataError: there is none."""
    header, records = read_run(folder)
    table = read_table(folder)
    return {
        "name": f"{header['benchmark']} {header['split'] or ''}".strip() + f": {policy_title(header)}",
        "expressions": len(records),
        "table": table,
        "folder": str(folder),
        "page": os.path.relpath(folder / "report.html", page_folder) if (folder / "report.html").is_file() else None,
    }


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return list(read_json_lines(path)) if path.is_file() else []
