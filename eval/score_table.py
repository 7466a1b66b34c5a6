"""A benchmark's table: its columns with confidence intervals, beside the paper's rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from veason.data import VideoBenchmark
from veason.metrics.scores import Column, SampleScore

RESAMPLES = 2000  # of the bootstrap, over videos: expressions of one video are not independent


@dataclass(frozen=True)
class ScoreInterval:
    """A number with its 95 % bootstrap interval; NaN where no sample falls into it."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def summarize(
    benchmark: type[VideoBenchmark], scores: Sequence[SampleScore], seed: int = 0
) -> dict[str, ScoreInterval]:
    """The benchmark's numbers, by column title, in percent."""
    videos = sorted({score.video for score in scores})
    draws = np.random.default_rng(seed).multinomial(len(videos), np.full(len(videos), 1 / len(videos)), size=RESAMPLES)
    weights = np.vstack([np.ones(len(videos)), draws])  # the first row is the sample itself
    values = {column.title: _bootstrap(column, scores, videos, weights) for column in benchmark.columns}
    extra = {title: ScoreInterval(value) for title, value in benchmark.extra_metrics(scores).items()}
    return extra | values if benchmark.extra_metrics_first else values | extra


def _bootstrap(
    column: Column, scores: Sequence[SampleScore], videos: Sequence[str], weights: np.ndarray
) -> ScoreInterval:
    position = {video: number for number, video in enumerate(videos)}
    means = []
    for group in column.groups:
        sums, counts = np.zeros(len(videos)), np.zeros(len(videos))
        for score in scores:
            value = score.value(column.metric)
            if group(score) and value is not None:
                sums[position[score.video]] += value
                counts[position[score.video]] += 1
        if counts.sum():
            with np.errstate(invalid="ignore"):  # a resample may hold no sample of a group
                means.append((weights @ sums) / (weights @ counts))
    if not means:
        return ScoreInterval(float("nan"))
    mean = 100 * np.mean(means, axis=0)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return ScoreInterval(float(mean[0]), float(low), float(high))


def partial_split(
    benchmark: type[VideoBenchmark], split: str, scores: Sequence[SampleScore], left_out: Collection[str] = ()
) -> str | None:
    """Why a table is not one of a whole official split, beside which the paper's rows may stand; None where it is."""
    if split in benchmark.official_size:
        unit, official = benchmark.official_size[split]
        count = len({score.video for score in scores}) if unit == "videos" else len(scores)
        if count < official:
            return f"{count:,} of the {official:,} {unit} of {benchmark.name} {split}"
    return f"samples were left out ({len(left_out)})" if left_out else None


def markdown_table(
    benchmark: type[VideoBenchmark], split: str, values: dict[str, ScoreInterval], name: str, part: str | None = None
) -> str:
    """Our row with its intervals, below those of the paper's table where all of the official split was scored.

    Args:
        part: as `partial_split` gives it; then a caption takes the place of the paper's rows.
    """
    paper = benchmark.paper_rows(split)
    rows = [
        [method, *(f"{row[title]:.1f}" if title in row else "-" for title in values)]
        for method, row in (paper if part is None else ())
    ]
    rows.append([name, *(_cell(value) for value in values.values())])
    lines = [["Method", *values], ["---"] * (1 + len(values)), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = [benchmark.note] if benchmark.note and rows[:-1] else []
    if paper and part is not None:
        notes.append(f"Not comparable with the paper's table, which is of the whole split: {part}.")
    return "\n\n".join([table, *notes])


def _cell(value: ScoreInterval) -> str:
    if np.isnan(value.value):
        return "-"
    return f"{value.value:.1f}" if np.isnan(value.low) else f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
