"""Masks of objects that have boxes alone: the tracker follows the largest box through the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veason import masks
from veason.errors import DataError
from veason.importing.annotations import BoxXYXY
from veason.tracking.base import Tracker
from veason.tracking.tracker_prompts import BoxPrompt
from veason.video.sources import open_folder

LOW_AGREEMENT = 0.5  # mean IoU of tracked and given boxes below which an object is named in the summary


class MasksFromBoxes:
    """Tracks one object of an imported video.

    Args:
        tracker: makes the masks.
        name: of the tracker, recorded beside them.
    """

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker, self.name = tracker, name

    def __call__(
        self, video: str, object_id: str, boxes: Mapping[int, BoxXYXY | None], frames: Path, kept: Sequence[int]
    ) -> dict[str, Any]:
        """The masks of an object, marked as tracked.

        Args:
            boxes: position in the source -> box; None where the object is absent.
            frames: the folder of the video's frames.
            kept: positions in the source of these frames.

        Returns:
            `masks`, one RLE or null a frame, `masks_from` ("boxes, <tracker>") and `box_iou`, the mean IoU of the given
            boxes with those of the masks on the other frames; None where there is no other.

        Raises:
            DataError: no frame that is kept has a box.
        """
        given = {number: boxes[position] for number, position in enumerate(kept) if position in boxes}
        present = {number: box for number, box in given.items() if box is not None}
        if not present:
            raise DataError(f"video {video}: object {object_id} has no box on a frame that is kept")
        keyframe = max(present, key=lambda number: _area(present[number]))
        prompt = BoxPrompt(keyframe, np.array([present[keyframe]], dtype=float))
        pictures = open_folder(frames)
        tracked: list[masks.Rle | None] = [None] * len(kept)
        for number, mask in self.tracker.track_video(pictures.__getitem__, len(kept), prompt):
            if mask.any() and not (number in given and given[number] is None):
                tracked[number] = masks.encode(mask)
        others = [_iou(box, masks.box(tracked[number])) for number, box in present.items() if number != keyframe]
        return {
            "masks": [masks.as_json(rle) for rle in tracked],
            "masks_from": f"boxes, {self.name}",
            "box_iou": round(float(np.mean(others)), 3) if others else None,
        }


def _area(box: BoxXYXY) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _iou(one: BoxXYXY, extremes: masks.Box | None) -> float:
    """Of a box with the one around a mask, whose extreme pixels are inclusive."""
    if extremes is None:
        return 0.0
    other = (extremes[0], extremes[1], extremes[2] + 1, extremes[3] + 1)
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(one) + _area(other) - shared)
