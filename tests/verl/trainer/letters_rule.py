"""A score that tells random answers apart, so that an untrained policy has something to learn: the share of vowels."""

from __future__ import annotations

from grpo_reward.parsing import ParsedResponse
from grpo_reward.parts import RewardInput
from grpo_reward.rules import RewardRule


def parse(text: str) -> ParsedResponse:
    """`valid_box_fraction` is the share of vowels."""
    share = sum(letter in "aeiou" for letter in text) / max(1, len(text))
    failure = None if share else "no vowel"
    return ParsedResponse(
        matches_format=False,
        valid_box_fraction=share,
        keyframe_timestamp=None,
        boxes=None,
        num_predicted=0,
        failure=failure,
    )


def vowels(reward_input: RewardInput) -> float:
    """The part, 0 to 1."""
    return reward_input.parsed.valid_box_fraction


RULE = RewardRule(parse, {"vowels": vowels})
