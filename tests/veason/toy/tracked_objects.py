"""Objects of toy videos that a test can track."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from veason.toy.toy_video import ToyVideo

MARGIN = 5  # frames


class TrackedObject(NamedTuple):
    """An object's most visible frame, MARGIN or more frames from both ends, and its box there."""

    object_index: int
    prompted: int
    box: tuple[int, int, int, int]


def find_tracked_objects(video: ToyVideo) -> list[TrackedObject]:
    """The objects that are at least half visible in a frame with MARGIN frames on both sides."""
    tracks = []
    for number, fact in enumerate(video.facts):
        ratio = np.array(fact.visible_ratio)
        ratio[:MARGIN] = ratio[len(ratio) - MARGIN :] = 0
        best = int(ratio.argmax())
        box = fact.boxes[best]
        if box is not None and ratio[best] >= 0.5:
            tracks.append(TrackedObject(number, best, box))
    return tracks
