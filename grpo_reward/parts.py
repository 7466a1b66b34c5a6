"""The four parts of the published reward, each a pure function of one response.

    def brevity_part(reward_input: RewardInput) -> float:
        return 1.0 if len(reward_input.response) < 400 else 0.0

A part never raises for what the policy wrote and never leaves its range. Boxes are in pixels of the ground-truth masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from grpo_reward.parsing import ParsedResponse
from veason.answers import MAX_BOXES
from veason.data.examples import GroundTruth

MaskArray: TypeAlias = np.ndarray | torch.Tensor  # [T, H, W]; every value but 0 is the object


@dataclass(frozen=True)
class RewardInput:
    """What a part sees of one response.

    Attributes:
        response: the whole text that the policy wrote.
        parsed: the response as the rule parses it.
        ground_truth: the sample's ground-truth boxes and masks.
        masks: the tracked masks on the sampled frames; None where nothing was tracked.
        sample_id: `<video>/<exp_id>`.
        expression: as in the data set.
    """

    response: str
    parsed: ParsedResponse
    ground_truth: GroundTruth
    masks: MaskArray | None = None
    sample_id: str = ""
    expression: str = ""


def format_part(reward_input: RewardInput) -> float:
    """0 to 2: one point for the layout of the tags, one for the share of well-formed boxes."""
    return float(reward_input.parsed.matches_format) + reward_input.parsed.valid_box_fraction


def keyframe_part(reward_input: RewardInput) -> float:
    """0 to 1: the target's area on the chosen frame over its largest area.

    0 for a timestamp that was not shown, or a target in no frame.
    """
    position = keyframe_position(reward_input)
    areas = [np.count_nonzero(mask) for mask in reward_input.ground_truth.masks]
    return 0.0 if position is None or max(areas) == 0 else areas[position] / max(areas)


def spatial_part(reward_input: RewardInput) -> float:
    """0 to 1: sum of the matched boxes' IoU over the larger of both counts."""
    position, matched = keyframe_position(reward_input), match_boxes(reward_input)
    if position is None or matched is None:
        return 0.0
    count = max(reward_input.parsed.num_predicted, min(len(reward_input.ground_truth.boxes[position]), MAX_BOXES))
    return clip01(float(matched[1].sum()) / count)


def consistency_part(reward_input: RewardInput) -> float:
    """0 to 1: mean over frames of the IoU with the ground-truth masks, 1 where both are empty; 0 without tracking."""
    if reward_input.masks is None:
        return 0.0
    return float(frame_ious(reward_input.masks, reward_input.ground_truth.masks).mean())


def keyframe_position(reward_input: RewardInput) -> int | None:
    """The position of the answer's timestamp among the sampled frames."""
    timestamp, shown = reward_input.parsed.keyframe_timestamp, reward_input.ground_truth.timestamps
    return shown.index(timestamp) if timestamp in shown else None


def match_boxes(reward_input: RewardInput) -> tuple[np.ndarray, np.ndarray] | None:
    """Hungarian matching of predicted and ground-truth boxes on the chosen frame.

    Returns:
        The numbers of the matched predicted boxes and their IoU; None where no matching is possible.
    """
    position = keyframe_position(reward_input)
    if position is None or reward_input.parsed.boxes is None:
        return None
    true = np.array(reward_input.ground_truth.boxes[position], dtype=np.float64).reshape(-1, 4)[:MAX_BOXES]
    ious = box_ious(reward_input.parsed.boxes, true)
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
        predicted_area, true_area = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(-1) for boxes in (predicted, true))
        area = predicted_area[:, None] + true_area[None]
        return shared / (area - shared)


def frame_ious(masks: MaskArray, ground_truth: np.ndarray) -> torch.Tensor:
    """IoU per frame, float64 [T] on the CPU, of two mask sequences [T, H, W], counted on the device of `masks`.

    Raises:
        ValueError: the shapes differ, which is the tracker's fault and not the answer's.
    """
    tracked = masks != 0 if isinstance(masks, torch.Tensor) else torch.from_numpy(np.not_equal(masks, 0))
    true = torch.from_numpy(ground_truth != 0).to(tracked.device)
    if tracked.shape != true.shape:
        raise ValueError(
            f"the tracker gave masks of shape {tuple(tracked.shape)} for a ground truth of shape {tuple(true.shape)}"
        )
    shared, union = (tracked & true).flatten(1).sum(1), (tracked | true).flatten(1).sum(1)
    return torch.where(union == 0, 1.0, shared.double() / union.clamp(min=1)).cpu()


def clip01(value: float) -> float:
    """`value` clipped to [0, 1], which inverted boxes, or boxes too large for a float, can leave."""
    return min(max(value, 0.0), 1.0)
