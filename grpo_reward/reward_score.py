"""The score of one response, 0 to 5.

| part | range | what |
| --- | --- | --- |
| format | 0-2 | the layout of the tags, and the share of well-formed boxes |
| keyframe | 0-1 | the target's area on the chosen frame over its largest area |
| spatial | 0-1 | IoU of predicted and true boxes on the chosen frame, matched one to one |
| consistency | 0-1 | IoU of the masks tracked from the boxes with the true masks, over all sampled frames |

The parts are functions in `grpo_reward/parts.py`, the rules that sum them are in `grpo_reward/rules.py`. What the
policy writes never raises; it scores 0. What the tracker does wrong always raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from grpo_reward.parts import MaskArray, RewardContext
from grpo_reward.rules import Rule, find_rule
from veason.data.examples import GroundTruth
from veason.tracking.prompts import ObjectsPrompt

__all__ = ["DEFAULT_RULE", "Breakdown", "GroundTruth", "TrackBoxes", "TrackObjects", "score_answer", "score_context"]

DEFAULT_RULE = "video_match_keyframe_sft_sam_mod"

# (boxes float64 [K, 4], the keyframe's position among the sampled frames) -> masks [T, H, W], or None
TrackBoxes = Callable[[np.ndarray, int], MaskArray | None]
TrackObjects = Callable[[ObjectsPrompt], MaskArray | None]  # keyframes are positions among the sampled frames


@dataclass(frozen=True)
class Breakdown:
    """The score of one response, part by part.

    Attributes:
        total: the weighted sum; NaN where it could not be computed.
        parts: name -> value, unweighted.
        failure: why the answer could not be parsed, None if it could.
    """

    total: float
    parts: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


def score_answer(
    response: str,
    truth: GroundTruth,
    track_boxes: TrackBoxes | None,
    rule: str | Rule = DEFAULT_RULE,
    sample_id: str = "",
    expression: str = "",
    track_objects: TrackObjects | None = None,
) -> Breakdown:
    """Score one response.

    Args:
        response: the whole text that the policy wrote.
        truth: what it is compared with.
        track_boxes: called at most once, when the rule compares masks and the answer names boxes on a frame that was
            shown.
        rule: a name in `grpo_reward.rules.RULES`, `package.module:name`, or a `Rule`.
        sample_id, expression: handed to the parts.
        track_objects: called instead of `track_boxes` by a rule for answers with points.
    """
    rule = rule if isinstance(rule, Rule) else find_rule(rule)
    context = RewardContext(response, rule.parse(response), truth, None, sample_id, expression)
    prompt = rule.prompt(context)
    if prompt is None:
        return score_context(rule, context)
    if (track_objects if isinstance(prompt, ObjectsPrompt) else track_boxes) is None:
        raise ValueError("this rule compares tracked masks and was given no tracker")
    if isinstance(prompt, ObjectsPrompt):
        masks = track_objects(prompt) if track_objects else None
    else:
        masks = track_boxes(prompt.boxes, prompt.keyframe) if track_boxes else None
    context = replace(context, masks=masks)
    return score_context(rule, context)


def score_context(rule: Rule, context: RewardContext) -> Breakdown:
    """Sum a rule's parts over a response that was parsed and tracked.

    Raises:
        ValueError: a part gave a value that is not finite.
    """
    parts = {name: part(context) for name, part in rule.parts.items()}
    for name, value in parts.items():
        if not math.isfinite(value):
            raise ValueError(f"reward part {name!r} gave {value}; a part is a finite number for every response")
    total = sum(rule.weights.get(name, 1) * value for name, value in parts.items())
    return Breakdown(total, parts, context.parsed.failure)
