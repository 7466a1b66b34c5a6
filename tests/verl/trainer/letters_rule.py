"""A score that tells random answers apart, so that an untrained policy has something to learn: the share of vowels."""

from __future__ import annotations

from grpo_reward.reading import Reading
from grpo_reward.rules import Rule


def read(text: str) -> Reading:
    """`well_formed` is the share of vowels."""
    share = sum(letter in "aeiou" for letter in text) / max(1, len(text))
    return Reading(
        layout=False, well_formed=share, time=None, boxes=None, predicted=0, failure=None if share else "no vowel"
    )


def vowels(reading: Reading, *_: object) -> float:
    """The part, 0 to 1."""
    return reading.well_formed


RULE = Rule(read, {"vowels": vowels})
