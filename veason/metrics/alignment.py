"""Do masks lie on their own frames? Two signs of a mask list that slips: a mask that leaps away and back, and edges
that fit a neighbour.

Both work on one object's RLEs. The first reads no picture. The second lays the outlines of the masks t - 1, t and t + 1
on frame t: where the object moves, only the right one follows the edges of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from pycocotools import mask as coco

from veason import masks
from veason.masks import Rle

SIDE = 480  # pictures are compared at this longer side, in pixels
MOVED = 0.93  # neighbours with a larger IoU than this tell nothing
LOOKS = 16  # moving frames looked at, at most, in each half of a track
NEEDED, AGREE, STRONGER = 5, 0.75, 1.1  # frames that must speak, share that must agree, gain in edge strength


def leaps(track: Sequence[Rle | None]) -> list[int]:
    """Frames whose mask touches neither neighbour's although these two agree: a mask of another moment, or of another
    object.
    """
    beside = [overlap(one, other) for one, other in pairwise(track)]
    return [
        t
        for t in range(1, len(track) - 1)
        if masks.area(track[t]) and max(beside[t - 1], beside[t]) < 0.1 and overlap(track[t - 1], track[t + 1]) > 0.5
    ]


def overlap(one: Rle | None, other: Rle | None) -> float:
    """Intersection over union of two masks, without decoding; 0 when one is missing."""
    if one is None or other is None:
        return 0.0
    return float(coco.iou([one], [other], [0])[0, 0])


def slip(track: Sequence[Rle | None], read_grey: Callable[[int], np.ndarray]) -> tuple[int, int] | None:
    """By how many frames the masks are late or early, and from which frame on.

    Args:
        track: one object's masks.
        read_grey: frame index -> uint8 [H, W] of any size.

    Returns:
        (shift, first frame): the mask that fits frame t is track[t + shift], shift -1 or 1. None when the masks fit, or
        cannot be judged because the object hardly moves.
    """
    moving = [t for t in range(1, len(track) - 1) if _moves(track, t)]
    # a list may slip half-way: each half is judged by itself when the whole does not tell
    middle = len(track) // 2
    for part in (moving, [t for t in moving if t < middle], [t for t in moving if t >= middle]):
        chosen = part if len(part) <= LOOKS else [part[i] for i in np.linspace(0, len(part) - 1, LOOKS, dtype=int)]
        strengths = np.array([edge_strengths(track, t, read_grey(t)) for t in chosen]).reshape(-1, 3)
        shift = judge(strengths)
        if shift:
            return shift, part[0]
    return None


def judge(strengths: np.ndarray) -> int:
    """The shift that the edge strengths [frames, 3] of shifts -1, 0 and 1 agree on; 0 when they do not."""
    if len(strengths) < NEEDED:
        return 0
    best = strengths.argmax(axis=1)
    for column, shift in ((0, -1), (2, 1)):
        if np.mean(best == column) >= AGREE and strengths[:, column].mean() > STRONGER * strengths[:, 1].mean():
            return shift
    return 0


def edge_strengths(track: Sequence[Rle | None], t: int, grey: np.ndarray) -> list[float]:
    """Mean strength of frame t's edges under the outline of each of the masks t - 1, t and t + 1."""
    grey = shrink(grey)
    size = grey.shape[::-1]
    small = cv2.GaussianBlur(grey, (3, 3), 0).astype(np.float32)
    strength = cv2.magnitude(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    found = []
    for step in (-1, 0, 1):
        rle = track[t + step]
        mask = (
            cv2.resize(masks.decode(rle), size, interpolation=cv2.INTER_NEAREST)
            if rle is not None
            else np.zeros(size[::-1], np.uint8)
        )
        outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        outline[[0, -1]] = False  # where an object leaves the picture there is no edge to find
        outline[:, [0, -1]] = False
        found.append(float(strength[outline].mean()) if outline.any() else 0.0)
    return found


def shrink(grey: np.ndarray) -> np.ndarray:
    """A grey picture at a longer side of SIDE pixels, at most."""
    scale = min(1.0, SIDE / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return grey if scale == 1 else cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _moves(track: Sequence[Rle | None], t: int) -> bool:
    return all(masks.area(track[t + step]) for step in (-1, 0, 1)) and all(
        overlap(track[t], track[t + step]) < MOVED for step in (-1, 1)
    )
