"""Boxes and points of a response in the grid of the ground-truth masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from grpo_reward.parsing import ParsedResponse
from veason.answers import ObjectKeyframe
from veason.data.examples import GroundTruth


def scale_boxes(parsed: ParsedResponse, coordinate_range: int | None, ground_truth: GroundTruth) -> ParsedResponse:
    """The response with its boxes and points in pixels of the ground-truth masks.

    Args:
        coordinate_range: its coordinates are from 0 to this; None: pixels of the masks already.
    """
    if coordinate_range is None or parsed.boxes is None:
        return parsed
    height, width = ground_truth.masks.shape[1:]
    factors = np.array([width, height, width, height]) / coordinate_range
    with np.errstate(over="ignore"):
        boxes = parsed.boxes * factors
    objects = tuple(tuple(scale_object_keyframe(each, factors[:2]) for each in item) for item in parsed.objects)
    # a box too large for a float stays finite
    return replace(parsed, boxes=np.nan_to_num(boxes, nan=np.nan), objects=objects)


def scale_object_keyframe(entry: ObjectKeyframe, factors: np.ndarray) -> ObjectKeyframe:
    """The entry in another grid; a coordinate too large for a float stays finite."""

    def scaled(values: Sequence[float]) -> tuple[float, ...]:
        with np.errstate(over="ignore"):
            return tuple(np.nan_to_num(np.array(values, dtype=np.float64) * np.resize(factors, len(values))).tolist())

    box = None if entry.box is None else scaled(entry.box)
    points, negative = (tuple((x, y) for x, y in map(scaled, each)) for each in (entry.points, entry.negative_points))
    return replace(entry, box=box, points=points, negative_points=negative)  # type: ignore[arg-type]
