"""The field's metrics of one video: J, F (DAVIS 2017), and VISA's accuracy A and robustness R.

All take masks [T, H, W] (bool or uint8) and return float64 [T], fractions per frame. J and F read any non-zero pixel as
the object. A and R come twice: under VISA's names they take the values as they are stored, so with 0/255 masks R's
penalty is 255 times too large; `accuracy_binary` and `robustness_binary` correct that by reading non-zero as 1.

Sources: davisvideochallenge/davis2017-evaluation `davis2017/metrics.py` (J, F), cilinyan/VISA `tools/metrics.py` (all).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from veason.metrics.boundaries import count_near_boundary

BOUNDARY_TOLERANCE = 0.008  # of the frame's diagonal, rounded up to whole pixels (DAVIS)


def jaccard(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Region similarity J: intersection over union; 1 where both masks are empty."""
    pred, true = _uint8_pair(pred, true)
    result, both = np.ones(len(pred)), np.empty(pred.shape[1:], np.uint8)
    for t, (p, g) in enumerate(zip(pred, true)):
        inter = cv2.countNonZero(cv2.min(p, g, dst=both))
        union = cv2.countNonZero(p) + cv2.countNonZero(g) - inter
        if union:
            result[t] = inter / union
    return result


def boundary_f(pred: np.ndarray, true: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> np.ndarray:
    """Contour accuracy F: harmonic mean of the shares of boundary pixels within `tolerance` of the other boundary.

    A mask that fills the frame has no boundary, like an empty one. No boundary on both sides gives 1, on one side 0.

    Args:
        tolerance: as a share of the frame's diagonal.

    Raises:
        ValueError: the tolerance is not between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is a share of the frame's diagonal, above 0 and below 1, not {tolerance}")
    pred, true = _binary_pair(pred, true)
    height, width = pred.shape[1:]
    radius = math.ceil(tolerance * math.sqrt(height * height + width * width))
    result, both = np.empty(len(pred)), np.empty(pred.shape[1:], np.uint8)
    for t, (p, g) in enumerate(zip(pred, true)):
        result[t] = _boundary_f_of_frame(cv2.bitwise_or(p, np.add(g, g, out=both), dst=both), radius)
    return result


def accuracy(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """VISA's A: the share of pixels whose STORED values are equal (255 never agrees with a true 1)."""
    pred, true = _uint8_pair(pred, true)
    result, differing = np.empty(len(pred)), np.empty(pred.shape[1:], np.uint8)
    for t, (p, g) in enumerate(zip(pred, true)):
        result[t] = (differing.size - cv2.countNonZero(cv2.bitwise_xor(p, g, dst=differing))) / differing.size
    return result


def accuracy_binary(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """A corrected: the share of pixels on which the masks agree, non-zero read as the object."""
    return accuracy(*_binary_pair(pred, true))


def robustness(pred: np.ndarray, true: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """VISA's R: 1 - (false pixels) / (foreground pixels + 1e-6), at least 0, on the STORED uint8 values.

    Arithmetic wraps as uint8 does: equal to VISA's numbers to the last bit.

    Args:
        foreground: the union of all annotated objects of the video, [T, H, W].
    """
    pred, true = _uint8_pair(pred, true)
    _same_shape(true, foreground)
    foreground = _as_uint8(foreground)
    result, scratch = np.empty(len(pred)), np.empty(pred.shape[1:], np.uint8)
    for t, (p, g, f) in enumerate(zip(pred, true, foreground)):
        result[t] = max(1 - _false_weight(p, g, scratch) / (cv2.sumElems(f)[0] + 1e-6), 0.0)
    return result


def robustness_binary(pred: np.ndarray, true: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """R corrected: false pixels and foreground pixels are counted, whatever values they are stored with."""
    return robustness(*_binary_pair(pred, true), (np.asarray(foreground) != 0).view(np.uint8))


# -- frames -----------------------------------------------------------------------------------------------------------


def _boundary_f_of_frame(both: np.ndarray, radius: int) -> float:
    """F of one frame, uint8 [H, W], bit 0 the prediction and bit 1 the ground truth; computed in their bounding box."""
    left, top, width, height = cv2.boundingRect(both)
    # One pixel more on every side: the boundary lies half a pixel towards the origin, and what lies beyond must read as
    # 0.
    counts = count_near_boundary(both[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1], radius)
    if not counts.first or not counts.second:
        return float(counts.first == counts.second)
    precision, recall = counts.first_near / counts.first, counts.second_near / counts.second
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _false_weight(pred: np.ndarray, true: np.ndarray, scratch: np.ndarray) -> int:
    """sum((1 - true) * pred) in uint8 arithmetic, [H, W]; on 0/1 masks a count."""
    if _is_binary(pred) and _is_binary(true):
        return cv2.countNonZero(cv2.subtract(pred, true, dst=scratch))
    return int(((np.uint8(1) - true) * pred).sum(dtype=np.int64))


def _is_binary(mask: np.ndarray) -> bool:
    return mask.size == 0 or int(mask.max()) <= 1


# -- arguments --------------------------------------------------------------------------------------------------------


def _binary_pair(pred: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pred, true = _uint8_pair(pred, true)
    return tuple(mask if _is_binary(mask) else (mask != 0).view(np.uint8) for mask in (pred, true))  # type: ignore[return-value]


def _uint8_pair(pred: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _same_shape(pred, true)
    return _as_uint8(pred), _as_uint8(true)


def _as_uint8(mask: np.ndarray) -> np.ndarray:
    mask = np.ascontiguousarray(mask)
    if mask.dtype == np.bool_:
        return mask.view(np.uint8)
    if mask.dtype != np.uint8:
        raise TypeError(f"masks must be bool or uint8, not {mask.dtype}")
    return mask


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 3 or a.shape != b.shape:
        raise ValueError(f"masks must be [T, H, W] of one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
