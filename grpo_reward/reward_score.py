"""The score of one answer, 0 to 5.

| part | range | what |
| --- | --- | --- |
| format | 0-2 | the layout of the tags, and the share of well-formed boxes |
| keyframe | 0-1 | the target's area on the chosen frame over its largest area |
| spatial | 0-1 | IoU of predicted and true boxes on the chosen frame, matched one to one |
| consistency | 0-1 | IoU of the masks that SAM 2 tracks from the boxes with the true masks, over all sampled frames |

What the policy writes never raises; it scores 0. What the tracker does wrong always raises; it is not the policy's
fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from grpo_reward.parts import Masks
from grpo_reward.reading import Reading
from grpo_reward.rules import Rule, find_rule
from veason.data.examples import GroundTruth

__all__ = ["DEFAULT_RULE", "Breakdown", "GroundTruth", "Tracker", "score_answer", "score_reading"]

DEFAULT_RULE = "video_match_keyframe_sft_sam_mod"

# (boxes float64 [K, 4], the keyframe's position among the sampled frames) -> masks [T, H, W]; None: the tracker has no
# masks to give
Tracker = Callable[[np.ndarray, int], Masks | None]


@dataclass(frozen=True)
class Breakdown:
    """The score of one answer, part by part; a part that the rule does not have reads as 0. A NaN total could not be
    computed.
    """

    total: float
    parts: dict[str, float] = field(default_factory=dict)
    failure: str | None = None  # why the answer could not be read, None if it could

    @property
    def format(self) -> float:
        return self.parts.get("format", 0.0)

    @property
    def keyframe(self) -> float:
        return self.parts.get("keyframe", 0.0)

    @property
    def spatial(self) -> float:
        return self.parts.get("spatial", 0.0)

    @property
    def consistency(self) -> float:
        return self.parts.get("consistency", 0.0)


def score_answer(
    response: str, truth: GroundTruth, tracker: Tracker | None, rule: str | Rule = DEFAULT_RULE
) -> Breakdown:
    """Score one answer.

    Args:
        response: the whole text that the policy wrote.
        truth: what it is compared with.
        tracker: called at most once, when the rule has a use for its masks and the answer names boxes on a frame that
            was shown.
        rule: a name in `grpo_reward.rules.RULES`, `package.module:name`, or a `Rule`.
    """
    rule = rule if isinstance(rule, Rule) else find_rule(rule)
    reading = rule.read(response)
    prompt = rule.prompt(reading, truth)
    if prompt is None:
        return score_reading(rule, reading, truth, None)
    if tracker is None:
        raise ValueError("this rule compares tracked masks and was given no tracker")
    return score_reading(rule, reading, truth, tracker(prompt.boxes, prompt.keyframe))


def score_reading(rule: Rule, reading: Reading, truth: GroundTruth, masks: Masks | None) -> Breakdown:
    """Sum a rule's parts over an answer that was read and tracked."""
    parts = {name: part(reading, truth, masks) for name, part in rule.parts.items()}
    for name, value in parts.items():
        if not math.isfinite(value):
            raise ValueError(f"reward part {name!r} gave {value}; a part is a finite number for every answer")
    return Breakdown(sum(parts.values()), parts, reading.failure)
