"""The four parts of the score, each a pure function of what was read, the truth and the tracked masks.

A part never raises for what the policy wrote and never leaves its range. Boxes are in pixels of the truth's masks.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from grpo_reward.reading import Reading
from veason.answers import MAX_BOXES
from veason.data.examples import GroundTruth

Masks: TypeAlias = np.ndarray | torch.Tensor


def format_part(reading: Reading, _truth: GroundTruth, _masks: Masks | None) -> float:
    """0 to 2: one point for the layout of the tags, one for the share of well-formed boxes."""
    return float(reading.layout) + reading.well_formed


def keyframe_part(reading: Reading, truth: GroundTruth, _masks: Masks | None) -> float:
    """0 to 1: the target's area on the chosen frame over its largest area; 0 for a time not shown, or a target in no
    frame.
    """
    position = keyframe_position(reading, truth)
    areas = [np.count_nonzero(mask) for mask in truth.masks]
    return 0.0 if position is None or max(areas) == 0 else areas[position] / max(areas)


def spatial_part(reading: Reading, truth: GroundTruth, _masks: Masks | None) -> float:
    """0 to 1: sum of the matched boxes' IoU over the larger of both counts."""
    position, matched = keyframe_position(reading, truth), match_boxes(reading, truth)
    if position is None or matched is None:
        return 0.0
    count = max(reading.predicted, min(len(truth.boxes[position]), MAX_BOXES))
    return unit(float(matched[1].sum()) / count)


def consistency_part(_reading: Reading, truth: GroundTruth, masks: Masks | None) -> float:
    """0 to 1: mean over frames of the IoU between tracked and true masks, 1 where both are empty; 0 where nothing was
    tracked.
    """
    return 0.0 if masks is None else float(frame_ious(masks, truth.masks).mean())


def keyframe_position(reading: Reading, truth: GroundTruth) -> int | None:
    """Where among the sampled frames the answer's time stands."""
    return truth.frame_ids.index(reading.time) if reading.time in truth.frame_ids else None


def match_boxes(reading: Reading, truth: GroundTruth) -> tuple[np.ndarray, np.ndarray] | None:
    """Hungarian matching on the chosen frame: (numbers of the matched predicted boxes, their IoU), or None where none
    is possible.
    """
    position = keyframe_position(reading, truth)
    if position is None or reading.boxes is None:
        return None
    ious = box_ious(reading.boxes, np.array(truth.boxes[position], dtype=np.float64).reshape(-1, 4)[:MAX_BOXES])
    if np.isnan(ious).any() or np.isinf(ious).any():
        return None
    rows, columns = linear_sum_assignment(1.0 - ious)
    return rows, ious[rows, columns]


def box_ious(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """IoU [M, N] of boxes [M, 4] and [N, 4] whose corners are pixels inside them: a box is x2 - x1 + 1 wide."""
    with np.errstate(all="ignore"):
        low = np.maximum(predicted[:, None, :2], true[None, :, :2])
        high = np.minimum(predicted[:, None, 2:], true[None, :, 2:])
        shared = np.clip(high - low + 1, 0, None).prod(-1)
        area = (predicted[:, 2:] - predicted[:, :2] + 1).prod(-1)[:, None] + (true[:, 2:] - true[:, :2] + 1).prod(-1)[
            None
        ]
        return shared / (area - shared)


def frame_ious(masks: Masks, truth: np.ndarray) -> torch.Tensor:
    """IoU per frame, float64 [T] on the CPU, of two mask sequences [T, H, W], counted where `masks` lives.

    Raises:
        ValueError: the shapes differ, which is the tracker's fault and not the answer's.
    """
    tracked = masks != 0 if isinstance(masks, torch.Tensor) else torch.from_numpy(np.not_equal(masks, 0))
    true = torch.from_numpy(truth != 0).to(tracked.device)
    if tracked.shape != true.shape:
        raise ValueError(
            f"the tracker gave masks of shape {tuple(tracked.shape)} for a truth of shape {tuple(true.shape)}"
        )
    shared, union = (tracked & true).flatten(1).sum(1), (tracked | true).flatten(1).sum(1)
    return torch.where(union == 0, 1.0, shared.double() / union.clamp(min=1)).cpu()


def unit(value: float) -> float:
    """`value` inside [0, 1]; boxes turned inside out, or too large for a float, can leave it."""
    return min(max(value, 0.0), 1.0)
