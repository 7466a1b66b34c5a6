"""Parts that correct the published reward, under names of their own; `veason_strict` is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grpo_reward.parts import Masks, consistency_part, keyframe_part, keyframe_position, spatial_part
from grpo_reward.reading import Reading
from veason.data.examples import GroundTruth


def strict_keyframe_part(reading: Reading, truth: GroundTruth, masks: Masks | None) -> float:
    """As published, and for a target in no frame 1 when the answer names no box."""
    if not truth.masks.any():
        return float(refuses(reading))
    return keyframe_part(reading, truth, masks)


def strict_spatial_part(reading: Reading, truth: GroundTruth, masks: Masks | None) -> float:
    """As published over the objects in the frame: [0, 0, 0, 0] is no box. For a target in no frame 1 when the answer
    names none.
    """
    if not truth.masks.any():
        return float(refuses(reading))
    position = keyframe_position(reading, truth)
    if position is None or reading.boxes is None or not len(reading.boxes) or not present(truth, position):
        return 0.0
    boxes = list(truth.boxes)
    boxes[position] = present(truth, position)
    return spatial_part(reading, replace(truth, boxes=boxes), masks)


def strict_consistency_part(reading: Reading, truth: GroundTruth, masks: Masks | None) -> float:
    """As published over ALL predicted boxes; for a target in no frame 1 when the answer names no box."""
    if not truth.masks.any():
        return float(refuses(reading))
    return consistency_part(reading, truth, masks)


def strict_boxes(reading: Reading, truth: GroundTruth) -> np.ndarray | None:
    """What the tracker is given: every predicted box, as at inference; none for a target in no frame, as no part asks
    for its masks.
    """
    return reading.boxes if truth.masks.any() else None


def refuses(reading: Reading) -> bool:
    """The answer could be read and says that the target is absent."""
    return reading.failure is None and reading.predicted == 0


def present(truth: GroundTruth, position: int) -> list[list[float]]:
    """The boxes of the objects that are in the frame."""
    return [box for box in truth.boxes[position] if np.any(box)]
