"""The field's metrics of one video: J, F (DAVIS 2017), and VISA's accuracy A and robustness R.

All take masks [T, H, W] (bool or uint8) and return float64 [T], fractions per frame. J and F read any non-zero pixel as
the object. A and R come twice: under VISA's names they take the values as they are stored, so with 0/255 masks R's
penalty is 255 times too large; `accuracy_binary` and `robustness_binary` correct that by reading non-zero as 1.

Sources: davisvideochallenge/davis2017-evaluation `davis2017/metrics.py` (J, F) and cilinyan/VISA `tools/metrics.py` (all).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

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
    """
    pred, true = _uint8_pair(pred, true)
    height, width = pred.shape[1:]
    radius = math.ceil(tolerance * math.sqrt(height * height + width * width))
    return np.array([_boundary_f_of_frame(p, g, radius) for p, g in zip(pred, true)], dtype=np.float64)


def accuracy(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """VISA's A: the share of pixels whose STORED values are equal (a 0/255 prediction never agrees with a 0/1 truth)."""
    pred, true = _uint8_pair(pred, true)
    area, differing = math.prod(pred.shape[1:]), np.empty(pred.shape[1:], np.uint8)
    return np.array([(area - cv2.countNonZero(cv2.bitwise_xor(p, g, dst=differing))) / area for p, g in zip(pred, true)], dtype=np.float64)


def accuracy_binary(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """A corrected: the share of pixels on which the masks agree, non-zero read as the object."""
    return accuracy(*_binary_pair(pred, true))


def robustness(pred: np.ndarray, true: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """VISA's R: 1 - (false pixels) / (foreground pixels + 1e-6), at least 0, on the STORED uint8 values, wrapping as uint8 does.

    `foreground` is the union of all annotated objects of the video, [T, H, W]. Equal to VISA's numbers to the last bit.
    """
    pred, true = _uint8_pair(pred, true)
    _same_shape(true, foreground)
    foreground = _as_uint8(foreground)
    return np.array(
        [max(1 - _false_weight(p, g) / (cv2.sumElems(f)[0] + 1e-6), 0.0) for p, g, f in zip(pred, true, foreground)], dtype=np.float64
    )


def robustness_binary(pred: np.ndarray, true: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """R corrected: false pixels and foreground pixels are counted, whatever values they are stored with."""
    return robustness(*_binary_pair(pred, true), (np.asarray(foreground) != 0).view(np.uint8))


# -- frames -----------------------------------------------------------------------------------------------------------


def _boundary_f_of_frame(pred: np.ndarray, true: np.ndarray, radius: int) -> float:
    """F of one frame [H, W] uint8.

    The work is done in the box that holds both masks, and there on bits: a mask is one big integer whose rows are `stride`
    bits apart, so that a dilation by a disk is a few shifts and a count is a popcount. Exact, and several times faster
    than a dilation of bytes.
    """
    left, top, width, height = cv2.boundingRect(cv2.bitwise_or(pred, true))
    # One pixel more on every side: the boundary lies half a pixel towards the origin, and what lies beyond must read as 0.
    rows, columns = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    pred, true = pred[rows, columns], true[rows, columns]
    stride = -(-(pred.shape[1] + radius) // 8) * 8
    pred_edge, true_edge = _boundary_bits(pred, stride), _boundary_bits(true, stride)
    if not pred_edge or not true_edge:
        return float(pred_edge == true_edge)
    precision = (pred_edge & _dilate_bits(true_edge, radius, stride)).bit_count() / pred_edge.bit_count()
    recall = (true_edge & _dilate_bits(pred_edge, radius, stride)).bit_count() / true_edge.bit_count()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary_bits(mask: np.ndarray, stride: int) -> int:
    """The boundary of a mask [h, w] as bit `y * stride + x`: pixels that differ from the one right, below or diagonal.

    The last row looks to the right only, the last column down only, the last pixel nowhere.
    """
    height, width = mask.shape
    bits = _pack(mask, stride)
    not_last_column = int.from_bytes(((1 << (width - 1)) - 1).to_bytes(stride // 8, "little") * height, "little")
    not_last_row = (1 << stride * (height - 1)) - 1
    right, below, diagonal = bits ^ (bits >> 1), bits ^ (bits >> stride), bits ^ (bits >> (stride + 1))
    return (right & not_last_column) | (below & not_last_row) | (diagonal & not_last_column & not_last_row)


def _pack(mask: np.ndarray, stride: int) -> int:
    packed = np.packbits(mask, axis=1, bitorder="little")
    rows = np.zeros((mask.shape[0], stride // 8), dtype=np.uint8)
    rows[:, : packed.shape[1]] = packed
    return int.from_bytes(rows.tobytes(), "little")


def _dilate_bits(bits: int, radius: int, stride: int) -> int:
    """Dilation by the disk x^2 + y^2 <= radius^2; rows need `radius` free bits at their end, so that none spills over."""
    result, window, length = 0, bits, 1  # window: the bits moved right by 0 to length - 1 pixels
    for dy in range(radius, -1, -1):  # the disk's rows, from its tip to its middle, each at least as wide as the last
        reach = math.isqrt(radius * radius - dy * dy)
        while length < 2 * reach + 1:
            step = min(length, 2 * reach + 1 - length)
            window |= window << step
            length += step
        result |= _shift(window, dy * stride - reach) | _shift(window, -dy * stride - reach)
    return result


def _shift(bits: int, by: int) -> int:
    return bits << by if by >= 0 else bits >> -by


def _false_weight(pred: np.ndarray, true: np.ndarray) -> int:
    """sum((1 - true) * pred) in uint8 arithmetic, [H, W]; on 0/1 masks a count."""
    if _is_binary(pred) and _is_binary(true):
        return cv2.countNonZero(cv2.subtract(pred, true))
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
