"""Whether a target is found when it is in view: tIoU and vIoU of one expression (Long-RVOS).

Source: iSEE-Laboratory/Long_RVOS `eval/eval_long_rvos/eval_static.py`.
"""

from __future__ import annotations

import numpy as np

from veason.metrics.vos_metrics import jaccard


def temporal_ious(pred: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """tIoU and vIoU, fractions; 1 and 1 where neither has a pixel in any frame.

    tIoU is the intersection over union of the sets of frames in which the masks have pixels. vIoU is the sum of J over
    the frames of the intersection, divided by the frames of the union.

    Args:
        pred, true: masks [T, H, W], bool or uint8, not 0 is the object.
    """
    shown, there = (np.asarray(masks).any(axis=(1, 2)) for masks in (pred, true))
    both, either = shown & there, np.count_nonzero(shown | there)
    if not either:
        return 1.0, 1.0
    return np.count_nonzero(both) / either, float(jaccard(pred, true)[both].sum()) / either
