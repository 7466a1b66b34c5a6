"""The toy world's teacher: three-step reasoning that is true of the frames, written from the scene instead of from
pictures.

`seed_cot_generation.py --teacher toy` uses it in the place of a large vision-language model, with the same checks on
what it writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from veason.data.base import VideoSample
from veason.errors import DataError
from veason.masks import Box, scale_box
from veason.toy.expressions import WAYS, Query, listing, seconds
from veason.toy.facts import ObjectFacts
from veason.toy.scene import HEIGHT, WIDTH


class ToyTeacher:
    """Reasons about a toy data set.

    Args:
        data_root: a folder that `veason.toy.world` wrote (ReVOS or ReasonVOS), with its `scenes.json`.
        size: side of the square frames that the student sees; the places it names are in their pixels.

    Raises:
        DataError: the folder has no `scenes.json`.
    """

    def __init__(self, data_root: str | Path, size: int) -> None:
        self.size = size
        self.path = Path(data_root) / "scenes.json"
        if not self.path.is_file():
            raise DataError(f"the toy teacher needs {self.path}, which `python -m veason.toy.world` writes")
        self.videos = json.loads(self.path.read_text(encoding="utf-8"))["videos"]

    def reason(self, sample: VideoSample, keyframe: int, times: Sequence[int]) -> str:
        """See `reasoning`.

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
        return reasoning([ObjectFacts(**fact) for fact in video["objects"]], Query(**expression), keyframe, self.size)


def reasoning(facts: Sequence[ObjectFacts], query: Query, keyframe: int, size: int) -> str:
    """`Step 1: ... Step 2: ... Step 3: ...`, a line each: what happens; why the keyframe; where each shape is there,
    and which is meant.

    Args:
        size: side in pixels of the square frames that the student sees.
    """
    steps = (what_happens(facts), why_this_frame(facts, query, keyframe), where(facts, query, keyframe, size))
    return "\n".join(f"Step {number}: {text}" for number, text in enumerate(steps, start=1))


def what_happens(facts: Sequence[ObjectFacts]) -> str:
    """One clause a shape, over the whole video."""
    clauses = [f"the {fact.texture} {fact.name} {behaviour(fact, facts)}" for fact in facts]
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


def where(facts: Sequence[ObjectFacts], query: Query, keyframe: int, size: int) -> str:
    """Every shape in view in the keyframe from left to right, with its extreme pixels in a size x size frame, and which
    is meant.

    The answer's boxes can be read off it: what a policy without knowledge has to learn is to find shapes, one after the
    other, and then to choose among what it has written.
    """
    if not query.targets:
        return "Nothing fits the description, so no object is to be located."
    boxes = {k: box for k, fact in enumerate(facts) if (box := fact.boxes[keyframe]) is not None}
    meant = [f"the {facts[k].name}" for k in query.targets if k in boxes]
    if not meant:
        return f"At {seconds(keyframe)} no target is in view, so none is to be located."
    seen = sorted(boxes, key=lambda k: boxes[k][0])
    places = ", ".join(f"the {facts[k].name} {_place(boxes[k], size)}" for k in seen)
    return f"At {seconds(keyframe)} from left to right: {places}. The target is {' and '.join(meant)}."


def _place(box: Box, size: int) -> list[int]:
    """The sides that the record's answer has, as whole pixels."""
    return [round(side) for side in scale_box(box, HEIGHT, WIDTH, size)]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
