"""Boundary pixels of two masks and how many lie near the other's boundary, by bit-parallel dilation.

A byte holds one pixel of either mask in each of four strips of rows. Folded so, a picture has a quarter of its rows,
and a shift by (dy, dx) pixels is an offset into one flat array; bits move only in the rows that a strip shares with its
neighbour. An exact dilation by a disk then takes some twenty bitwise operations for both masks. docs/log.md has the
comparison with cv2.distanceTransform.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import NamedTuple

import cv2
import numpy as np

STRIPS, FIRST, SECOND = 4, 0b01010101, 0b10101010  # the bits of either mask in the four strips


class BoundaryCounts(NamedTuple):
    """Pixels of each boundary, and how many of them lie near the other one."""

    first: int
    second: int
    first_near: int
    second_near: int


def count_near_boundary(masks: np.ndarray, radius: int) -> BoundaryCounts:
    """Count the boundary pixels of two masks that lie near the other's boundary.

    A pixel belongs to the boundary when it differs from the one right, below or diagonal; the last row and column are
    repeated.

    Args:
        masks: uint8 [h, w], bit 0 the first mask and bit 1 the second.
        radius: the largest distance in pixels, Euclidean, inclusive, at least 1.
    """
    folded, rows = _fold(masks, radius)
    edges = _boundaries(folded, rows, radius, masks.shape)
    flat, inner = edges.reshape(-1), slice(radius * edges.shape[1], -radius * edges.shape[1])
    near = _dilate(flat, radius, edges.shape[1])
    first, second = flat[inner] & FIRST, flat[inner] & SECOND
    counts = _ones(first), _ones(second)
    # Shifted by one, the first mask's bits meet the second's.
    first += first
    first &= near
    near += near
    second &= near
    return BoundaryCounts(*counts, _ones(first), _ones(second))


def _fold(masks: np.ndarray, radius: int) -> tuple[np.ndarray, int]:
    """The folded masks, and the rows of a strip.

    The strips are in rows `radius` to `radius + rows`; the masks' last row and column are repeated. A strip has one row
    more than it needs, for the repeated row, and at least `radius`, so that it reaches into its neighbours only. The
    empty end of a row, `radius` wide, also pads the next row on its left.
    """
    height, width = masks.shape
    rows = max(-(-(height + 1) // STRIPS), radius)
    folded = np.zeros((rows + 2 * radius, width + radius), np.uint8)
    strips = folded[radius : radius + rows + 1]
    flat = strips.reshape(-1)
    for start in range((height - 1) // rows * rows, -1, -rows):
        for _ in range(2):
            np.add(flat, flat, out=flat)  # on to the next strip's bits
        part = masks[start : start + rows]
        there = strips[: len(part), :width]
        cv2.bitwise_or(part, there, dst=there)
    (strip, row), (next_strip, next_row) = divmod(height - 1, rows), divmod(height, rows)
    strips[next_row] |= (strips[row] >> 2 * strip & 3) << 2 * next_strip
    strips[rows] = strips[0] >> 2  # below a strip is the next one
    strips[:, width] = strips[:, width - 1]
    return folded, rows


def _boundaries(folded: np.ndarray, rows: int, radius: int, shape: tuple[int, ...]) -> np.ndarray:
    """The boundaries, uint8 of `folded`'s shape, each strip padded with its neighbours' rows."""
    (height, width), stride, flat = shape, folded.shape[1], folded.reshape(-1)
    down = flat[:-stride] ^ flat[stride:]
    edges = np.zeros_like(folded)
    edge = edges.reshape(-1)[: len(down) - 1]
    np.bitwise_xor(flat[: len(edge)], flat[1 : len(edge) + 1], out=edge)
    edge |= down[:-1]
    edge |= down[1:]  # with the pixel right of it this is the diagonal
    edges[:, width:] = 0
    inner = edges[radius : radius + rows]
    strip, row = divmod(height, rows)
    inner[row] &= 255 ^ 3 << 2 * strip  # the row after the last
    edges[:radius] = inner[rows - radius :] << 2
    edges[radius + rows :] = inner[:radius] >> 2
    return edges


def _dilate(flat: np.ndarray, radius: int, stride: int) -> np.ndarray:
    """Dilate by the disk x^2 + y^2 <= radius^2; returns the rows of `flat` but the first and last `radius`, flat."""
    near = np.zeros(len(flat) - 2 * radius * stride, np.uint8)
    window, length = flat, 1  # window[i]: any of flat[i : i + length]
    # The disk from its tips to its middle, rows of equal width together.
    for reach, lines in groupby(range(radius, -1, -1), lambda dy: math.isqrt(radius**2 - dy**2)):
        tall = list(lines)
        window, length = _widen(window, length, 2 * reach + 1), 2 * reach + 1
        block = _widen(window, 1, len(tall), stride)
        for row in {radius - tall[0], radius + tall[-1]}:
            start = row * stride - reach
            near |= block[start : start + len(near)]
    return near


def _widen(window: np.ndarray, length: int, wanted: int, stride: int = 1) -> np.ndarray:
    """From the union of `length` pixels that are `stride` apart to the union of `wanted`."""
    while length < wanted:
        step = min(length, wanted - length)
        window = window[: -step * stride] | window[step * stride :]
        length += step
    return window


def _ones(bits: np.ndarray) -> int:
    return int(cv2.norm(bits, cv2.NORM_HAMMING))
