"""Scores a benchmark's predictions as `eval.metrics` does, without its table and files."""

from __future__ import annotations

from pathlib import Path

from eval.mask_scoring import open_scored_split, score_selection
from veason.data.selection import select_samples
from veason.metrics.scores import SampleScore


def score_benchmark(
    benchmark: str, data: Path, split: str | None, predictions: Path, processes: int, limit: int | None = None
) -> list[SampleScore]:
    """The scores of all samples, or of the first `limit`, in the benchmark's order."""
    opened = open_scored_split(benchmark, data, split)
    return score_selection(opened, benchmark, select_samples(opened, limit=limit, frames=False), predictions, processes)
