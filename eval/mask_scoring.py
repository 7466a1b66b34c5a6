"""Scores of every sample of a benchmark: predicted PNGs against the ground truth, a video at a time, in parallel
processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from veason.data import VideoBenchmark, VideoSample, open_benchmark
from veason.data.selection import SampleSelection
from veason.errors import DataError
from veason.masks import read_mask
from veason.metrics.scores import SampleScore

VIDEOS_PER_PROCESS = 4  # at least; a process takes a second or two to start


def open_scored_split(benchmark: str, data: str | os.PathLike[str], split: str | None) -> VideoBenchmark:
    """A split that can be scored: it needs its annotation and masks, and no frame. Raises DataError."""
    opened = open_benchmark(benchmark, data, split, check=False)
    if not opened.has_ground_truth:
        raise DataError(
            f"{benchmark} {opened.split} has no public ground truth: write submission_archive=FILE for its server"
        )
    if opened.missing_metrics:
        print(opened.missing_metrics, file=sys.stderr)
    return opened


def score_selection(
    opened: VideoBenchmark, name: str, selection: SampleSelection, predictions: Path, processes: int | None = None
) -> list[SampleScore]:
    """Score some samples of a benchmark, in their order.

    Args:
        name: by which other processes open the benchmark.
        processes: by default one per core, where there are videos enough; 1 works in this process.
    """
    videos = [list(indices) for _, indices in groupby(selection.indices, lambda index: opened.samples[index].video)]
    processes = min(processes or min(os.cpu_count() or 1, len(videos) // VIDEOS_PER_PROCESS) or 1, len(videos))
    if processes == 1:
        done: Iterable[list[SampleScore]] = (score_video(opened, video, predictions) for video in videos)
    else:
        arguments = (name, str(opened.root), opened.split, predictions)
        with ProcessPoolExecutor(processes, get_context("spawn"), _open_in_process, arguments) as pool:
            done = list(pool.map(_score_in_process, videos, chunksize=max(1, len(videos) // (8 * processes))))
    scores = [score for video in done for score in video]
    assert len(scores) == len(selection.indices)
    return scores


def score_video(benchmark: VideoBenchmark, indices: Sequence[int], predictions: Path) -> list[SampleScore]:
    """Scores of the samples of one video."""
    samples = [benchmark.samples[index] for index in indices]
    return benchmark.score_video(samples, partial(read_predictions, predictions))


def read_predictions(root: Path, sample: VideoSample) -> tuple[np.ndarray, np.ndarray]:
    """One sample's PNGs.

    Returns:
        The stored values, uint8 [T, H, W], and which frames have a file, bool [T]; a missing one reads as empty.

    Raises:
        DataError: a PNG has another size than the video, or is no picture.
    """
    folder = prediction_folder(root, sample)
    values = np.zeros((len(sample.frames), sample.height, sample.width), np.uint8)
    present = np.zeros(len(sample.frames), bool)
    for index, frame in enumerate(sample.frames):
        path = folder / f"{frame}.png"
        if not os.path.lexists(path):
            continue
        picture = read_mask(path, numbered=False, what="prediction")
        if picture.shape != values.shape[1:]:
            raise DataError(
                f"prediction {path} is {picture.shape[0]}x{picture.shape[1]}, its video {sample.height}x{sample.width}"
            )
        values[index], present[index] = picture, True
    return values, present


def prediction_folder(root: Path, sample: VideoSample) -> Path:
    """The folder of a sample's PNGs: below `root`, with or without the leading `Annotations/`."""
    full = root / sample.result_dir
    return full if full.is_dir() else root / Path(*Path(sample.result_dir).parts[1:])


_opened: dict[str, Any] = {}  # of a scoring process


def _open_in_process(benchmark: str, data: str, split: str | None, predictions: Path) -> None:
    cv2.setNumThreads(1)
    _opened.update(benchmark=open_benchmark(benchmark, data, split, check=False), predictions=predictions)


def _score_in_process(indices: Sequence[int]) -> list[SampleScore]:
    return score_video(_opened["benchmark"], indices, _opened["predictions"])


def scores_to_json(scores: Sequence[SampleScore]) -> list[dict[str, Any]]:
    return [{**asdict(score), "JF": score.JF} for score in scores]
