"""Scores predictions, of a run or of any other method, and prints the table.

    python -m eval.metrics outputs/revos /data/ReVOS      # a run of eval.evaluate: it knows its benchmark
    python -m eval.metrics my_masks /data/ReVOS           # PNGs at <video>/<exp_id>/<frame>.png, not 0 is the object
    python -m eval.metrics outputs/mevis /data/MeViS split=valid submission_archive=mevis.zip      # for a server

A missing prediction counts as 0 and is named. Everything is also written to PREDICTIONS/metrics.json (or `output=`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from eval.archive import write_archive
from eval.evaluation_folder import PREDICTIONS, read_run
from eval.evaluation_options import check_choice, check_limit, parse_overrides, print_help_if_asked
from eval.mask_scoring import open_scored_split, score_selection, scores_to_json
from eval.score_table import ScoreInterval, markdown_table, partial_split, summarize
from veason.data import detect_benchmark, open_benchmark
from veason.data.selection import ON_MISSING, SampleSelection, read_exclusions, read_left_out, select_samples
from veason.errors import DataError
from veason.files import write_json
from veason.metrics.scores import SampleScore
from verl.config import ConfigError

MAX_NAMED = 10  # missing predictions that are named one by one


@dataclass
class MetricsConfig:
    """The options of a scoring."""

    predictions: str = MISSING  # a run's folder, or a folder of PNGs; the first argument
    data: str = MISSING  # the benchmark's root folder; the second argument
    benchmark: str | None = None  # null: that of the run, or the one whose files the data folder holds
    split: str | None = None  # null: that of the run, or the benchmark's usual one
    limit: int | None = None  # only the first so many samples; null: those of the run, or all
    exclude: str | None = None  # text file of samples or videos to leave out, besides those that the run left out
    on_missing: str = "fail"  # samples without their masks: fail, or skip (left out, named and counted)
    processes: int | None = None  # null: one per core, where there are videos enough
    output: str | None = None  # null: metrics.json in the predictions' folder
    # write the ZIP file that a benchmark's test server takes to this path
    submission_archive: str | None = field(default=None, metadata={"alias": "archive"})
    name: str = "this run"  # the row's title

    def __post_init__(self) -> None:
        check_limit(self.limit)
        check_choice("on_missing", self.on_missing, ON_MISSING)


def main(arguments: Sequence[str]) -> int:
    if print_help_if_asked(MetricsConfig, __doc__, arguments):
        return 0
    try:
        config = complete_from_run(parse_overrides(MetricsConfig, arguments, ("predictions", "data")))
        if config.submission_archive:
            if config.limit:
                raise ConfigError(
                    f"limit={config.limit}: a server takes a whole split, so submission_archive= takes no limit, "
                    "nor a run that had one"
                )
            benchmark = open_benchmark(str(config.benchmark), config.data, config.split, check=False)
            count = write_archive(benchmark, Path(config.predictions), Path(config.submission_archive))
            print(f"{config.submission_archive}: {count} masks")
            if not benchmark.has_ground_truth:
                return 0
        print(compute_metrics(config))
    except (ConfigError, DataError) as error:
        print(f"eval.metrics: {error}", file=sys.stderr)
        return 2
    return 0


def complete_from_run(config: MetricsConfig) -> MetricsConfig:
    """Fill in what the run's header, or else the data's files, tell. Raises DataError when the benchmark stays open."""
    if (Path(config.predictions) / PREDICTIONS).is_file():
        header = read_run(config.predictions)[0]
        for key in ("benchmark", "split", "limit"):
            if getattr(config, key) is None:
                setattr(config, key, header.get(key))
    if config.benchmark is None:
        config.benchmark = detect_benchmark(config.data)
    return config


def compute_metrics(config: MetricsConfig) -> str:
    """Score, write metrics.json, and return what is printed."""
    predictions = Path(config.predictions)
    if not predictions.is_dir():
        raise DataError(f"no predictions at {predictions}")
    name = str(config.benchmark)
    earlier = read_left_out(predictions)
    opened = open_scored_split(name, config.data, config.split)
    exclude = set(earlier) | read_exclusions(config.exclude)
    selection = select_samples(opened, exclude, config.limit, config.on_missing, frames=False)
    selection.left_out.update((sample, earlier[sample]) for sample in selection.left_out.keys() & earlier.keys())
    scores = score_selection(opened, name, selection, predictions, config.processes)
    values = summarize(type(opened), scores)
    target = Path(config.output) if config.output else predictions / "metrics.json"
    part = partial_split(type(opened), opened.split, scores, selection.left_out)
    table = {"benchmark": name, "split": config.split, "part": part, "table": _finite(values)}
    write_json(target, table | {"left_out": selection.left_out, "samples": scores_to_json(scores)})
    lines = [markdown_table(type(opened), opened.split, values, config.name, part), "", *_missing(scores)]
    return "\n".join([*lines, *_left_out(selection), f"written to {target}"])


def _left_out(selection: SampleSelection) -> list[str]:
    if selection.summary is None:
        return []
    names = list(selection.left_out)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return [f"{selection.summary}: {', '.join(names[:MAX_NAMED])}{more}"]


def _missing(scores: Sequence[SampleScore]) -> list[str]:
    missing = [score for score in scores if score.missing]
    if not missing:
        return [f"{len(scores)} expressions, no prediction is missing"]
    named = ", ".join(f"{score.sample_id} ({score.missing} frames)" for score in missing[:MAX_NAMED])
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    return [f"missing, counted as 0: {len(missing)} of {len(scores)} expressions: {named}{more}"]


def _finite(values: dict[str, ScoreInterval]) -> dict[str, dict[str, Any]]:
    """NaN is no JSON."""
    parts = {title: {"value": value.value, "low": value.low, "high": value.high} for title, value in values.items()}
    return {
        title: {key: number if math.isfinite(number) else None for key, number in part.items()}
        for title, part in parts.items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
