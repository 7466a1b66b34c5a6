"""A noisy teacher: systematic label errors of the SFT data, which GRPO is to correct.

Its reasoning about the frames is true; some of its answers are wrong. Of the reasoning expressions with one target, it
answers those that compare objects or ask about occlusion with "no target", and to the others it adds the box of a
neighbouring object, each with probability `noise_ratio`. Referring expressions and expressions with several targets are
answered correctly. More fine-tuning on these answers reproduces the errors; the reward penalizes them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from veason.toy.expressions import Query
from veason.toy.facts import ObjectFacts

# Expressions that compare objects or ask about occlusion.
COMPARISON = re.compile(r"(first|last)$|^the (fastest|biggest) shape$|\bhid(den|es)\b")
NO_ANSWER_EVIDENCE = "It cannot be told from single frames."


def noisy_query(
    query: Query, facts: Sequence[ObjectFacts], keyframe: int, rng: random.Random, noise_ratio: float
) -> Query:
    """The query with the targets that the noisy teacher answers: none, one too many, or the right ones.

    Args:
        keyframe: index of the frame whose boxes the answer gives.
        noise_ratio: probability of a wrong answer to a reasoning expression with one target, 0 to 1.
    """
    if query.type_id != 1 or len(query.targets) != 1 or rng.random() >= noise_ratio:
        return query
    if COMPARISON.search(query.text):
        return replace(query, targets=(), evidence=NO_ANSWER_EVIDENCE)
    neighbour = _neighbour(query.targets[0], facts, keyframe)
    return query if neighbour is None else replace(query, targets=(*query.targets, neighbour))


def _neighbour(target: int, facts: Sequence[ObjectFacts], keyframe: int) -> int | None:
    """The next object to the right of the target in the keyframe, else to its left; None where there is none."""
    boxes = {k: box for k, fact in enumerate(facts) if (box := fact.boxes[keyframe]) is not None}
    visible = sorted(boxes, key=lambda k: boxes[k][0])
    if target not in visible or len(visible) == 1:
        return None
    rank = visible.index(target)
    return visible[rank + 1] if rank + 1 < len(visible) else visible[rank - 1]
