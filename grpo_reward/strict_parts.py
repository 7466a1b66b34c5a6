"""Parts that correct the published reward, under names of their own; the rule `veason_strict` is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grpo_reward.parts import RewardInput, consistency_part, keyframe_part, keyframe_position, spatial_part


def strict_keyframe_part(reward_input: RewardInput) -> float:
    """As published; for a target in no frame 1 when the answer names no box."""
    return keyframe_part(reward_input) if target_is_present(reward_input) else refusal_score(reward_input)


def strict_spatial_part(reward_input: RewardInput) -> float:
    """As published over the objects in the frame: [0, 0, 0, 0] is no box.

    For a target in no frame 1 when the answer names no box.
    """
    if not target_is_present(reward_input):
        return refusal_score(reward_input)
    position, parsed, ground_truth = keyframe_position(reward_input), reward_input.parsed, reward_input.ground_truth
    if position is None or parsed.boxes is None or not len(parsed.boxes):
        return 0.0
    present = [box for box in ground_truth.boxes[position] if np.any(box)]
    if not present:
        return 0.0
    boxes = [*ground_truth.boxes[:position], present, *ground_truth.boxes[position + 1 :]]
    return spatial_part(replace(reward_input, ground_truth=replace(ground_truth, boxes=boxes)))


def strict_consistency_part(reward_input: RewardInput) -> float:
    """As published over ALL predicted boxes; for a target in no frame 1 when the answer names no box."""
    return consistency_part(reward_input) if target_is_present(reward_input) else refusal_score(reward_input)


def strict_boxes(reward_input: RewardInput) -> np.ndarray | None:
    """What is tracked: every predicted box, as at inference; nothing for a target in no frame, where no part needs
    masks.
    """
    return reward_input.parsed.boxes if target_is_present(reward_input) else None


def target_is_present(reward_input: RewardInput) -> bool:
    """Whether the target is in any sampled frame."""
    return bool(reward_input.ground_truth.masks.any())


def refusal_score(reward_input: RewardInput) -> float:
    """1 when the answer could be parsed and says that the target is absent, else 0."""
    return float(reward_input.parsed.failure is None and reward_input.parsed.num_predicted == 0)
