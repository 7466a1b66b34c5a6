"""Parts that correct the published reward, under names of their own; the rule `veason_strict` is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grpo_reward.parts import RewardContext, consistency_part, keyframe_part, keyframe_position, spatial_part


def strict_keyframe_part(context: RewardContext) -> float:
    """As published; for a target in no frame 1 when the answer names no box."""
    return keyframe_part(context) if target_is_present(context) else refusal_score(context)


def strict_spatial_part(context: RewardContext) -> float:
    """As published over the objects in the frame: [0, 0, 0, 0] is no box.

    For a target in no frame 1 when the answer names no box.
    """
    if not target_is_present(context):
        return refusal_score(context)
    position, parsed, truth = keyframe_position(context), context.parsed, context.truth
    if position is None or parsed.boxes is None or not len(parsed.boxes):
        return 0.0
    present = [box for box in truth.boxes[position] if np.any(box)]
    if not present:
        return 0.0
    boxes = [*truth.boxes[:position], present, *truth.boxes[position + 1 :]]
    return spatial_part(replace(context, truth=replace(truth, boxes=boxes)))


def strict_consistency_part(context: RewardContext) -> float:
    """As published over ALL predicted boxes; for a target in no frame 1 when the answer names no box."""
    return consistency_part(context) if target_is_present(context) else refusal_score(context)


def strict_boxes(context: RewardContext) -> np.ndarray | None:
    """What is tracked: every predicted box, as at inference; nothing for a target in no frame, where no part needs
    masks.
    """
    return context.parsed.boxes if target_is_present(context) else None


def target_is_present(context: RewardContext) -> bool:
    """Whether the target is in any sampled frame."""
    return bool(context.truth.masks.any())


def refusal_score(context: RewardContext) -> float:
    """1 when the answer could be parsed and says that the target is absent, else 0."""
    return float(context.parsed.failure is None and context.parsed.num_predicted == 0)
