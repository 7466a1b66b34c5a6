"""Tracks a video again from boxes and points that somebody gives in the place of those of the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from veason.errors import DataError
from veason.inference.prediction import Box
from veason.masks import Rle, decode, encode
from veason.progress_bar import Progress, no_progress
from veason.results.segmentation import Segmentation
from veason.tracking.base import Tracker
from veason.tracking.tracker_prompts import FramePrompt, MultiObjectPrompt


def track_again(
    tracker: Tracker, result: Segmentation, objects: Sequence[FramePrompt], progress: Progress = no_progress
) -> Segmentation:
    """The result with the masks of other objects; expression and reasoning stay as they are.

    Args:
        result: of the same video, also one without an object.
        objects: at least one, all on one frame, which becomes the keyframe; coordinates in pixels of the frames.

    Returns:
        A result with one track an object. An object of points alone gets the box of its mask on the keyframe, or of its
        points where that mask is empty.

    Raises:
        DataError: there is no object, the objects are on several frames or outside the video, an object has neither a
            box with an area nor a positive point, or the tracker takes no points.
    """
    _check(tracker, result, objects)
    started, total = time.perf_counter(), len(result.frames)
    tracks: list[list[Rle]] = [[{}] * total for _ in objects]
    found = (
        (number, pair)
        for number, prompt in enumerate(objects)
        for pair in tracker.track_video(result.frames.__getitem__, total, MultiObjectPrompt(((prompt,),)))
    )
    for number, (index, mask) in progress(found, "tracking", len(objects) * total):
        tracks[number][index] = encode(mask)
    keyframe = objects[0].frame
    boxes = tuple(_shown_box(prompt, track[keyframe], result.size) for prompt, track in zip(objects, tracks))
    prediction = replace(result.prediction, keyframe=keyframe, boxes=boxes, failure=None, objects=())
    seconds = {**result.seconds, "tracking": time.perf_counter() - started}
    return replace(result, prediction=prediction, tracks=tracks, seconds=seconds)


def _check(tracker: Tracker, result: Segmentation, objects: Sequence[FramePrompt]) -> None:
    if not objects:
        raise DataError("there is no object to track: give a box or a point")
    if len({prompt.frame for prompt in objects}) > 1:
        raise DataError(f"the objects are on several frames: {sorted({prompt.frame for prompt in objects})}")
    if not 0 <= objects[0].frame < len(result.frames):
        raise DataError(f"frame {objects[0].frame} is outside the video of {len(result.frames)} frames")
    height, width = result.size
    for number, prompt in enumerate(objects, start=1):
        if not prompt.is_usable:
            raise DataError(f"object {number} has neither a box nor a positive point, or a coordinate is not finite")
        if len(prompt.points) and not tracker.takes_points:
            raise DataError(f"object {number} has points, and {type(tracker).__name__} takes boxes alone")
        if prompt.box is None:
            continue
        x1, y1, x2, y2 = np.asarray(prompt.box, dtype=float)
        if not (x1 < x2 and y1 < y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
            box = [float(side) for side in (x1, y1, x2, y2)]
            raise DataError(f"object {number}: the box {box} has no area inside the frame of {width} x {height} pixels")


def _shown_box(prompt: FramePrompt, mask: Rle, size: tuple[int, int]) -> Box:
    """The box of an object on the keyframe in whole pixels, clipped to the frame."""
    if prompt.box is not None:
        ends = np.asarray(prompt.box, dtype=float)
    else:
        rows, columns = np.nonzero(decode(mask))
        if not len(rows):
            points = np.asarray(prompt.points, dtype=float)[np.asarray(prompt.labels) == 1]
            columns, rows = np.floor(points).T
        ends = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    x1, y1, x2, y2 = (round(float(end)) for end in np.clip(ends, 0, [size[1], size[0], size[1], size[0]]))
    return x1, y1, x2, y2
