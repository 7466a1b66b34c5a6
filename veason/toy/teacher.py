"""The toy world's teacher: three-step reasoning that is true of the frames, written from the scene instead of from pictures.

`seed_cot_generation.py --teacher toy` uses it in the place of a large vision-language model, with the same checks on what it writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from veason.datasets.base import VideoSample
from veason.errors import DataError
from veason.toy.expressions import WAYS, Query, listing, seconds
from veason.toy.facts import ObjectFacts, region


class ToyTeacher:
    """Reasons about a toy data set.

    Args:
        data_root: a folder that `veason.toy.world` wrote (ReVOS or ReasonVOS), with its `scenes.json`.

    Raises:
        DataError: the folder has no `scenes.json`.
    """

    def __init__(self, data_root: str | Path) -> None:
        self.path = Path(data_root) / "scenes.json"
        if not self.path.is_file():
            raise DataError(f"the toy teacher needs {self.path}, which `python -m veason.toy.world` writes")
        self.videos = json.loads(self.path.read_text(encoding="utf-8"))["videos"]

    def reason(self, sample: VideoSample, keyframe: int, times: Sequence[int]) -> str:  # noqa: ARG002 (what other teachers see)
        """`Step 1: ... Step 2: ... Step 3: ...`, a line each: what happens; why the keyframe; what the target does there, and where.

        Args:
            sample: an expression of the data set.
            keyframe: the frame number that the reasoning arrives at.
            times: the frames that are shown.

        Raises:
            DataError: the video or the expression is not in `scenes.json`.
        """
        video = self.videos.get(sample.video, {})
        expression = video.get("expressions", {}).get(sample.exp_id)
        if expression is None or not 0 <= keyframe < len(sample.frames):
            raise DataError(f"{self.path} knows no {sample.sample_id} with a frame {keyframe}")
        facts = [ObjectFacts(**fact) for fact in video["objects"]]
        query = Query(**expression)
        steps = (what_happens(facts), why_this_frame(facts, query, keyframe), what_and_where(facts, query, keyframe))
        return "\n".join(f"Step {number}: {text}" for number, text in enumerate(steps, start=1))


def what_happens(facts: Sequence[ObjectFacts]) -> str:
    """One clause a shape, over the whole video."""
    clauses = [f"the {fact.name} {behaviour(fact, facts)}" for fact in facts]
    return _sentence("; ".join(clauses))


def behaviour(fact: ObjectFacts, facts: Sequence[ObjectFacts]) -> str:
    """What a shape does, in a few words."""
    if fact.gone is not None:
        text = "goes away and comes back"
    elif fact.enters is not None and fact.leaves is not None:
        text = f"enters at {seconds(fact.enters)} and leaves after {seconds(fact.leaves)}"
    elif fact.enters is not None:
        text = f"enters at {seconds(fact.enters)}"
    elif fact.leaves is not None:
        text = f"leaves after {seconds(fact.leaves)}"
    elif fact.still:
        text = "never moves"
    elif fact.circles:
        text = "goes round in circles"
    else:
        text = f"moves {WAYS[fact.direction]}" if fact.direction else "moves about"
    if fact.behind is not None:
        text += f", hidden behind the {facts[fact.behind].name} at {seconds(fact.hidden[0])}"
    return text


def why_this_frame(facts: Sequence[ObjectFacts], query: Query, keyframe: int) -> str:
    """How the target is told from the others, and how well the keyframe shows it."""
    shown = [facts[k] for k in query.targets if facts[k].share[keyframe] > 0]
    if not query.targets:
        near = [fact.name for fact in facts if fact.share[keyframe] > 0]
        seen = f"only {listing(near)} can be seen" if near else "nothing can be seen"
        return f"{query.evidence} At {seconds(keyframe)}, the keyframe, {seen}."
    if not shown:
        return f"{query.evidence} At {seconds(keyframe)}, the keyframe, nothing of the target can be seen."
    amounts = {amount(fact.share[keyframe]) for fact in shown}
    how = f"{amounts.pop() if len(amounts) == 1 else 'some'} of {listing([fact.name for fact in shown])}"
    return f"{query.evidence} At {seconds(keyframe)} {how} can be seen, so {keyframe} is the keyframe."


def amount(share: float) -> str:
    """A visible share in words."""
    return "all" if share >= 0.95 else "most" if share >= 0.6 else "a part"


def what_and_where(facts: Sequence[ObjectFacts], query: Query, keyframe: int) -> str:
    """Each target's movement and place in the keyframe."""
    clauses = []
    for fact in (facts[k] for k in query.targets):
        box = fact.boxes[keyframe]
        if box is not None:
            clauses.append(f"the {fact.name} {_movement(fact, keyframe)} in the {region(box)}")
    if not query.targets:
        return "Nothing fits the description, so no object is to be located."
    if not clauses:
        return f"At {seconds(keyframe)} no target is in view, so none is to be located."
    return f"At {seconds(keyframe)} {' and '.join(clauses)}."


def _movement(fact: ObjectFacts, keyframe: int) -> str:
    """`moves left`, ..., `stands still`, or `is` where the neighbouring frames do not show enough of the shape to tell."""
    if fact.still:
        return "stands still"
    before, after = max(keyframe - 1, 0), min(keyframe + 1, len(fact.boxes) - 1)
    start, end = fact.boxes[before], fact.boxes[after]
    if start is None or end is None or min(fact.share[before], fact.share[after]) < 0.97:
        return "is"
    x, y = (end[axis] + end[axis + 2] - start[axis] - start[axis + 2] for axis in (0, 1))  # twice the way of the centre
    if abs(x) + abs(y) < 3:
        return "stands still"
    if abs(x) >= abs(y):
        return "moves right" if x > 0 else "moves left"
    return "moves down" if y > 0 else "moves up"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
