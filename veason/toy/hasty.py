"""A teacher in a hurry, so that GRPO has something to mend: what it says about the frames is true, what it answers is
not always.

It looks at one frame after the other, so to questions that compare the shapes over time, or look behind one, it often
answers that this cannot be told; and of questions about what a single shape does it is often unsure, and boxes the
shape's neighbour as well. Referring expressions, and questions about several shapes, it answers well. Fine-tuning
learns these habits with everything else, and more of it changes nothing about them; a reward sees them at once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from veason.toy.expressions import Query
from veason.toy.facts import ObjectFacts

COMPARES = re.compile(
    r"(first|last)$|^the (fastest|biggest) shape$|\bhid(den|es)\b"
)  # expressions that it often gives up
EXCUSE = "It cannot be told from single frames."


def hasty(query: Query, facts: Sequence[ObjectFacts], keyframe: int, rng: random.Random, share: float) -> Query:
    """The question as the teacher answers it: with no target, with one too many, or as it is.

    Args:
        keyframe: the frame in which it takes boxes.
        share: how often it does not answer well what it is hasty about, 0 to 1.
    """
    if query.type_id != 1 or len(query.targets) != 1 or rng.random() >= share:
        return query
    if COMPARES.search(query.text):
        return replace(query, targets=(), evidence=EXCUSE)
    neighbour = _neighbour(query.targets[0], facts, keyframe)
    return query if neighbour is None else replace(query, targets=(*query.targets, neighbour))


def _neighbour(target: int, facts: Sequence[ObjectFacts], keyframe: int) -> int | None:
    """The next shape to the right of the target in the keyframe, else to its left; None where it is alone or not there."""
    boxes = {k: box for k, fact in enumerate(facts) if (box := fact.boxes[keyframe]) is not None}
    seen = sorted(boxes, key=lambda k: boxes[k][0])
    if target not in seen or len(seen) == 1:
        return None
    place = seen.index(target)
    return seen[place + 1] if place + 1 < len(seen) else seen[place - 1]
