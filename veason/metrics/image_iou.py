"""gIoU and cIoU of reasoning segmentation in images.

gIoU is the mean of the images' IoU, cIoU the summed intersections over the summed unions. Source: dvlab-research/LISA
`train_ds.py` (`validate`) and `utils/utils.py` (`intersectionAndUnionGPU`). That code adds in float32 and divides the
sum by n + 1e-5 for n images; here sums are float64 and the mean is over n, 5e-8 higher for 200 images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

IGNORED = 255  # label of pixels that count for nobody


def image_iou(pred: np.ndarray, labels: np.ndarray) -> tuple[float, int, int]:
    """One image's IoU, with the pixels of intersection and union; 1 where both masks are empty.

    Args:
        pred: [H, W], not 0 is the object.
        labels: uint8 [H, W], 1 on the target, `IGNORED` where nothing counts, 0 elsewhere.
    """
    counted, true = labels != IGNORED, labels == 1
    shown = (pred != 0) & counted
    intersection, union = int(np.count_nonzero(shown & true)), int(np.count_nonzero(shown | true))
    return (intersection / (union + 1e-5) if union else 1.0), intersection, union


def total_iou(images: Iterable[Mapping[str, float]]) -> float:
    """cIoU of images with their "intersection" and "union" in pixels; NaN of none."""
    counts = [(image["intersection"], image["union"]) for image in images]
    if not counts:
        return float("nan")
    intersection, union = np.array(counts, dtype=np.float64).sum(axis=0).tolist()
    return intersection / (union + 1e-10)
