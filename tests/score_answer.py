"""Scores one response by a rule, with a function in the tracker's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from grpo_reward.parts import MaskArray, RewardInput
from grpo_reward.reward_score import DEFAULT_RULE, RewardScore, score_response
from grpo_reward.rules import RewardRule, find_rule
from veason.data.examples import GroundTruth
from veason.tracking.tracker_prompts import MultiObjectPrompt

# (boxes float64 [K, 4], the keyframe's position among the sampled frames) -> masks [T, H, W], or None
TrackBoxes = Callable[[np.ndarray, int], MaskArray | None]
TrackObjects = Callable[[MultiObjectPrompt], MaskArray | None]  # keyframes are positions among the sampled frames


def score_answer(
    response: str,
    ground_truth: GroundTruth,
    track_boxes: TrackBoxes | None,
    rule: str | RewardRule = DEFAULT_RULE,
    sample_id: str = "",
    expression: str = "",
    track_objects: TrackObjects | None = None,
) -> RewardScore:
    """Score one response.

    Args:
        response: the whole text that the policy wrote.
        ground_truth: what it is compared with.
        track_boxes: called at most once, when the rule compares masks and the answer names boxes on a frame that was
            shown.
        rule: a name in `grpo_reward.rules.RULES`, `package.module:name`, or a `RewardRule`.
        sample_id, expression: handed to the parts.
        track_objects: called instead of `track_boxes` by a rule for answers with points.
    """
    rule = rule if isinstance(rule, RewardRule) else find_rule(rule)
    reward_input = RewardInput(response, rule.parse(response), ground_truth, None, sample_id, expression)
    prompt = rule.tracker_prompt(reward_input)
    if prompt is None:
        return score_response(rule, reward_input)
    if (track_objects if isinstance(prompt, MultiObjectPrompt) else track_boxes) is None:
        raise ValueError("this rule compares tracked masks and was given no tracker")
    if isinstance(prompt, MultiObjectPrompt):
        masks = track_objects(prompt) if track_objects else None
    else:
        masks = track_boxes(prompt.boxes, prompt.keyframe) if track_boxes else None
    reward_input = replace(reward_input, masks=masks)
    return score_response(rule, reward_input)
