"""Scores predicted masks of one expression against the ground-truth ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from veason.data.sample import VideoSample
from veason.metrics import vos_metrics
from veason.metrics.scores import SampleScore

# A sample's stored predictions, uint8 [T, H, W], and which frames have one, bool [T]; a missing one reads as empty.
ReadPrediction = Callable[[VideoSample], tuple[np.ndarray, np.ndarray]]


def score_masks(
    sample: VideoSample, pred: np.ndarray, present: np.ndarray, objects: np.ndarray, foreground: np.ndarray | None
) -> SampleScore:
    """J, F, A and R of one expression.

    Args:
        pred, present: as `ReadPrediction` gives them.
        objects: ground-truth masks, uint8 [objects, T, H, W].
        foreground: every object of the video, uint8 [T, H, W]; without it R is not computed.
    """
    score = blank_score(sample)
    # Added up, as VISA does: where two objects overlap the ground truth reads 2, which its A and R take as it is.
    true = objects.sum(axis=0, dtype=np.uint8) if len(objects) else np.zeros_like(pred)

    def mean(values: np.ndarray) -> float:
        return mean_present(values, present)

    score.missing = int((~present).sum())
    score.J, score.F = mean(vos_metrics.jaccard(pred, true)), mean(vos_metrics.boundary_f(pred, true))
    score.A = mean(vos_metrics.accuracy(pred, true))
    score.A_binary = mean(vos_metrics.accuracy_binary(pred, true))
    if foreground is not None:
        score.R = mean(vos_metrics.robustness(pred, true, foreground))
        score.R_binary = mean(vos_metrics.robustness_binary(pred, true, foreground))
    return score


def blank_score(sample: VideoSample) -> SampleScore:
    return SampleScore(sample.sample_id, sample.video, sample.type_id, sample.num_objects, category=sample.category)


def mean_present(values: np.ndarray, present: np.ndarray) -> float:
    """The mean over all frames, a missing one counted as 0."""
    return float(np.where(present, values, 0.0).mean())
