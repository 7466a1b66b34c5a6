"""Scores of every sample of a benchmark: predicted PNGs against the truth, a video at a time, in parallel processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from veason.data import Benchmark, VideoSample, open_benchmark
from veason.data.refdavis17 import RefDAVIS17
from veason.data.vicas import ViCaS
from veason.errors import DataError
from veason.masks import read_mask
from veason.metrics import segmentation as metrics

WORTH_A_PROCESS = 4  # videos; one takes a second or two to start
VOID = 255  # DAVIS's value of pixels that count for nobody


@dataclass
class SampleScore:
    """One expression's numbers: means over its frames, fractions; A and R follow VISA, the `_binary` ones correct them.

    A missing frame counts as 0 in all of them; `missing` says how many are. R is None where the benchmark has no
    foreground masks.
    """

    sample_id: str
    video: str
    type_id: int | None
    num_objects: int
    J: float = 0.0
    F: float = 0.0
    A: float = 0.0
    R: float | None = None
    A_binary: float = 0.0
    R_binary: float | None = None
    annotator: int | None = None  # Ref-DAVIS17: which of the four descriptions
    track_ious: list[list[float]] = field(
        default_factory=list
    )  # ViCaS: [predicted tracks][true tracks], over whole videos
    missing: int = 0

    @property
    def JF(self) -> float:
        return (self.J + self.F) / 2


def score_benchmark(
    benchmark: str,
    data: str | os.PathLike[str],
    split: str | None,
    predictions: Path,
    processes: int | None = None,
    limit: int | None = None,
) -> list[SampleScore]:
    """Score all samples (or the first `limit`), in the benchmark's order.

    Args:
        predictions: a run's folder, or anybody's PNGs, 8-bit, not 0 is the object, in the benchmark's own layout.
        processes: by default one a core, where there are videos enough; 1 works in this process.

    Raises:
        DataError: the split has no truth or no expression, or a prediction has another size than its video.
    """
    opened = open_benchmark(benchmark, data, split)
    if not opened.has_truth:
        raise DataError(
            f"{benchmark} {opened.split} has no public truth: make the server's archive with archive=FILE.zip"
        )
    if opened.lacks:
        print(opened.lacks, file=sys.stderr)
    count = len(opened.samples[:limit])
    videos = [
        [index for index, _ in pairs]
        for _, pairs in groupby(enumerate(opened.samples[:limit]), key=lambda pair: pair[1].video)
    ]
    if not videos:
        raise DataError(f"{benchmark} {opened.split} holds no expression to score")
    processes = min(processes or min(os.cpu_count() or 1, len(videos) // WORTH_A_PROCESS) or 1, len(videos))
    if processes == 1:
        done: Iterable[list[SampleScore]] = (score_video(opened, video, predictions) for video in videos)
    else:
        pool = ProcessPoolExecutor(
            processes, get_context("spawn"), _open_in_process, (benchmark, str(data), split, predictions)
        )
        with pool:
            done = list(pool.map(_score_in_process, videos, chunksize=max(1, len(videos) // (8 * processes))))
    scores = [score for video in done for score in video]
    assert len(scores) == count
    return scores


def score_video(benchmark: Benchmark, indices: Sequence[int], predictions: Path) -> list[SampleScore]:
    """Scores of the samples of one video."""
    samples = [benchmark.samples[index] for index in indices]
    if isinstance(benchmark, RefDAVIS17):
        return _score_davis(benchmark, samples, predictions)
    foreground = benchmark.foreground(samples[0])
    return [score_sample(benchmark, sample, predictions, foreground) for sample in samples]


def score_sample(
    benchmark: Benchmark, sample: VideoSample, predictions: Path, foreground: np.ndarray | None
) -> SampleScore:
    """Scores of one expression; `foreground` is uint8 [T, H, W], every object of its video."""
    score = _blank(sample)
    pred, there = read_predictions(predictions, sample)
    objects = benchmark.masks(sample)
    # Added up, as VISA does: where two objects overlap the truth reads 2, which its A and R take as it is.
    true = objects.sum(axis=0, dtype=np.uint8) if len(objects) else np.zeros_like(pred)
    score.missing = int((~there).sum())
    score.J, score.F = _mean(metrics.jaccard(pred, true), there), _mean(metrics.boundary_f(pred, true), there)
    score.A, score.A_binary = (
        _mean(metrics.accuracy(pred, true), there),
        _mean(metrics.accuracy_binary(pred, true), there),
    )
    if foreground is not None:
        score.R = _mean(metrics.robustness(pred, true, foreground), there)
        score.R_binary = _mean(metrics.robustness_binary(pred, true, foreground), there)
    if isinstance(benchmark, ViCaS):
        score.track_ious = _track_ious(pred, objects)
    return score


def read_predictions(root: Path, sample: VideoSample) -> tuple[np.ndarray, np.ndarray]:
    """The stored values uint8 [T, H, W] of one sample's PNGs, and which of them are there, bool [T]. A missing one
    reads as empty.

    Raises:
        DataError: a PNG has another size than the video, or is no picture.
    """
    folder = prediction_folder(root, sample)
    values = np.zeros((len(sample.frames), sample.height, sample.width), np.uint8)
    there = np.zeros(len(sample.frames), bool)
    for index, frame in enumerate(sample.frames):
        path = folder / f"{frame}.png"
        if not path.is_file():
            continue
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise DataError(f"prediction cannot be read: {path}")
        if picture.shape != values.shape[1:]:
            raise DataError(
                f"prediction {path} is {picture.shape[0]}x{picture.shape[1]}, its video {sample.height}x{sample.width}"
            )
        values[index], there[index] = picture, True
    return values, there


def prediction_folder(root: Path, sample: VideoSample) -> Path:
    """Where a sample's PNGs are: below `root`, with or without the leading `Annotations/`."""
    full = root / sample.result_dir
    return full if full.is_dir() else root / Path(*Path(sample.result_dir).parts[1:])


def _score_davis(benchmark: RefDAVIS17, samples: Sequence[VideoSample], predictions: Path) -> list[SampleScore]:
    """One video of Ref-DAVIS17 by the field's protocol, for each annotator on its own.

    The annotator's masks are put into one picture (where two claim a pixel, the first object has it), then matched to
    the true objects one to one for the best mean of J and F, as in DAVIS's unsupervised task; void pixels count for
    nobody.
    """
    folder = benchmark.mask_folder(samples[0])
    void = np.stack([read_mask(folder / f"{frame}.png") == VOID for frame in samples[0].frames])
    scores = []
    for annotator in sorted({benchmark.annotator(sample) for sample in samples}):
        chosen = sorted((s for s in samples if benchmark.annotator(s) == annotator), key=lambda s: int(s.object_ids[0]))
        stored, there = zip(*(read_predictions(predictions, sample) for sample in chosen))
        free, claimed = ~void, []
        for values in stored:
            claimed.append((values != 0) & free)
            free = free & (values == 0)
        true = [(benchmark.masks(sample)[0] != 0) & ~void for sample in chosen]
        j = np.array([[_mean(metrics.jaccard(p, t), on) for t in true] for p, on in zip(claimed, there)])
        f = np.array([[_mean(metrics.boundary_f(p, t), on) for t in true] for p, on in zip(claimed, there)])
        for p, t in zip(*linear_sum_assignment(-(j + f) / 2)):
            score = _blank(chosen[t])
            score.annotator, score.J, score.F = annotator, float(j[p, t]), float(f[p, t])
            score.missing = int((~there[t]).sum())
            scores.append(score)
    order = {sample.sample_id: place for place, sample in enumerate(samples)}
    return sorted(scores, key=lambda score: order[score.sample_id])


def _track_ious(pred: np.ndarray, objects: np.ndarray) -> list[list[float]]:
    """IoU over the whole video of the predicted track (there is one, or none if it is empty) with each true one."""
    pred = pred != 0
    if not pred.any():
        return []
    ious = []
    for true in objects != 0:
        union = np.count_nonzero(pred | true)
        ious.append(np.count_nonzero(pred & true) / union if union else 0.0)
    return [ious]


def _blank(sample: VideoSample) -> SampleScore:
    return SampleScore(sample.sample_id, sample.video, sample.type_id, sample.num_objects)


def _mean(values: np.ndarray, there: np.ndarray) -> float:
    return float(np.where(there, values, 0.0).mean())


_opened: dict[str, Any] = {}  # of a scoring process


def _open_in_process(benchmark: str, data: str, split: str | None, predictions: Path) -> None:
    cv2.setNumThreads(1)
    _opened.update(benchmark=open_benchmark(benchmark, data, split, check=False), predictions=predictions)


def _score_in_process(indices: Sequence[int]) -> list[SampleScore]:
    return score_video(_opened["benchmark"], indices, _opened["predictions"])


def as_json(scores: Sequence[SampleScore]) -> list[dict[str, Any]]:
    return [{**asdict(score), "JF": score.JF} for score in scores]
