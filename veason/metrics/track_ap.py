"""Average precision of tracks, as ViCaS reports it.

Source: Ali2500/ViCaS `vicas/evaluation/seg_eval.py`, its matching included: a track takes the last ground-truth one
above the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from veason.metrics.scores import SampleScore

THRESHOLDS = np.arange(0.5, 0.95 + 1e-4, 0.05)  # IoUs
MAX_TRACKS = 10  # of one referral


def track_ious(pred: np.ndarray, objects: np.ndarray) -> list[list[float]]:
    """IoU over the whole video of the predicted track with each ground-truth one.

    Args:
        pred: [T, H, W], the one predicted track; none where it is empty.
        objects: [objects, T, H, W].

    Returns:
        [predicted tracks][ground-truth tracks].
    """
    pred = pred != 0
    if not pred.any():
        return []
    ious = []
    for true in objects != 0:
        union = np.count_nonzero(pred | true)
        ious.append(np.count_nonzero(pred & true) / union if union else 0.0)
    return [ious]


def track_precisions(scores: Sequence[SampleScore]) -> dict[str, float]:
    """mAP over IoUs from 0.5 to 0.95 and AP at three of them, in percent; all tracks count as equally confident."""
    matched: list[np.ndarray] = []  # bool [thresholds] per predicted track
    for score in scores:
        taken: list[set[int]] = [set() for _ in THRESHOLDS]
        for ious in score.track_ious[:MAX_TRACKS]:
            hits = np.zeros(len(THRESHOLDS), bool)
            for level, threshold in enumerate(THRESHOLDS):
                above = [j for j, iou in enumerate(np.asarray(ious, np.float32)) if iou >= threshold]
                free = [j for j in above if j not in taken[level]]
                if free:
                    taken[level].add(free[-1])
                    hits[level] = True
            matched.append(hits)
    true_tracks = sum(score.num_objects for score in scores)
    if not matched or not true_tracks:
        precisions = np.zeros(len(THRESHOLDS)) if true_tracks else np.ones(len(THRESHOLDS))
    else:
        order = np.argsort(-np.ones(len(matched), np.float32))  # equal scores, in the reference's order
        precisions = np.array([_average_precision(hits, true_tracks) for hits in np.array(matched)[order].T])
    named = {"mAP": precisions.mean()}
    for threshold, precision in zip(THRESHOLDS, precisions):
        if round(100 * threshold) in (50, 75, 90):
            named[f"AP@{round(100 * threshold)}"] = precision
    return {title: 100 * float(value) for title, value in named.items()}


def _average_precision(hits: np.ndarray, true_tracks: int) -> float:
    """Area under the precision envelope, hits bool [tracks] in descending order of score."""
    found = np.cumsum(hits)
    precision = np.concatenate([[0.0], found / np.arange(1, len(hits) + 1), [0.0]])
    recall = np.concatenate([[0.0], found / true_tracks, [1.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))
