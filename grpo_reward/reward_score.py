"""The score of one response, 0 to 5.

| part | range | what |
| --- | --- | --- |
| format | 0-2 | the layout of the tags, and the share of well-formed boxes |
| keyframe | 0-1 | the target's area on the chosen frame over its largest area |
| spatial | 0-1 | IoU of predicted and ground-truth boxes on the chosen frame, matched one to one |
| consistency | 0-1 | IoU of the masks tracked from the boxes with the ground-truth masks, over all sampled frames |

The parts are functions in `grpo_reward/parts.py`, the rules that sum them are in `grpo_reward/rules.py`. What the
policy writes never raises; it scores 0. What the tracker does wrong always raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from grpo_reward.parts import RewardInput
from grpo_reward.rules import RewardRule

DEFAULT_RULE = "video_match_keyframe_sft_sam_mod"


@dataclass(frozen=True)
class RewardScore:
    """The score of one response, part by part.

    Attributes:
        total: the weighted sum; NaN where it could not be computed.
        parts: name -> value, unweighted.
        failure: why the answer could not be parsed, None if it could.
    """

    total: float
    parts: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


def score_response(rule: RewardRule, reward_input: RewardInput) -> RewardScore:
    """Sum a rule's parts over a response that was parsed and tracked.

    Raises:
        ValueError: a part gave a value that is not finite.
    """
    parts = {name: part(reward_input) for name, part in rule.parts.items()}
    for name, value in parts.items():
        if not math.isfinite(value):
            raise ValueError(f"reward part {name!r} gave {value}; a part is a finite number for every response")
    total = sum(rule.weights.get(name, 1) * value for name, value in parts.items())
    return RewardScore(total, parts, reward_input.parsed.failure)
