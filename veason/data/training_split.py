"""The split of a benchmark that is trained on, and the videos that are held out of data without splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from veason.data import find_benchmark
from veason.data.base import VideoBenchmark
from veason.errors import DataError


def open_training_split(
    benchmark: str | type[VideoBenchmark], root: str | os.PathLike[str], meta_file: str | None = None
) -> VideoBenchmark:
    """A benchmark's split to train on.

    Args:
        benchmark: a name of `veason.data.BENCHMARKS`, `package.module:Class`, or a class.
        root: the benchmark's folder, or an annotation file in it.
        meta_file: annotation file in the folder, or the name of a split; by default the benchmark's `training_source`.

    Raises:
        DataError: the split has no public masks, or as the benchmark raises it.
    """
    cls, folder = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark, Path(root)
    split, preferred = cls.training_source(folder)
    if folder.is_file():
        folder, meta_file = folder.parent, folder.name
    elif meta_file is None:
        meta_file = preferred
    for name in cls.splits:
        if meta_file in (name, cls.split_file(folder, name)):
            split, meta_file = name, None
            break
    opened = cls(folder, split, meta_file)
    if not opened.has_ground_truth:
        raise DataError(f"{cls.name} {split} has no public masks to train on; choose another split by data.meta_file")
    return opened


def startup_messages(benchmark: VideoBenchmark) -> list[str]:
    """What should be known about the split that is trained on."""
    shown = f"training on {benchmark.meta_path}, {len(benchmark.samples)} expressions"
    hint = benchmark.training_hint()
    return [f"{shown}: {hint}" if hint else shown]


def validation_videos(videos: Iterable[str], val_ratio: float, seed: int) -> set[str]:
    """A share of the videos for validation, drawn by `seed`: of a ratio above 0 at least one, and never all."""
    names = sorted(set(videos))
    count = min(max(1, round(len(names) * val_ratio)), len(names) - 1) if val_ratio > 0 and names else 0
    return {names[index] for index in np.random.default_rng(seed).permutation(len(names))[:count]}
