"""Rule-based teacher of the toy world: three-step reasoning generated from the scene facts instead of from pixels.

`seed_cot_generation.py --teacher toy` uses it in place of a large vision-language model, with the same checks on its
answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from veason.data.base import VideoSample
from veason.errors import DataError
from veason.masks import Box, answer_box
from veason.toy.expressions import DIRECTION_PHRASES, Query, format_seconds, join_names
from veason.toy.facts import ObjectFacts
from veason.toy.scene import HEIGHT, WIDTH


class ToyTeacher:
    """Generates the reasoning for expressions of a toy data set.

    Args:
        data_root: a folder that `veason.toy.world` wrote (ReVOS or ReasonVOS), with its `scenes.json`.
        size: side in pixels of the student's square frames.
        coordinate_range: coordinates are from 0 to this; None: pixels of the student's frames.

    Raises:
        DataError: the folder has no `scenes.json`.
    """

    def __init__(self, data_root: str | Path, size: int, coordinate_range: int | None = None) -> None:
        self.size, self.coordinate_range = size, coordinate_range
        self.path = Path(data_root) / "scenes.json"
        if not self.path.is_file():
            raise DataError(f"the toy teacher needs {self.path}, which `python -m veason.toy.world` writes")
        self.videos = json.loads(self.path.read_text(encoding="utf-8"))["videos"]

    def reason(self, sample: VideoSample, keyframe: int, indices: Sequence[int]) -> str:
        """The text of `write_reasoning` for one expression.

        Args:
            sample: an expression of the data set.
            keyframe: index of the keyframe.
            indices: of the shown frames in the video.

        Raises:
            DataError: the video or the expression is not in `scenes.json`.
        """
        video = self.videos.get(sample.video, {})
        # by its text: in ReasonVOS an exp_id comes again for another object
        asked = (each for each in video.get("expressions", {}).values() if each["text"] == sample.expression)
        expression = next(asked, None)
        if expression is None or not 0 <= keyframe < len(sample.frames):
            raise DataError(f"{self.path} knows no {sample.sample_id} with a frame {keyframe}")
        facts = [ObjectFacts(**fact) for fact in video["objects"]]
        return write_reasoning(facts, Query(**expression), keyframe, self.size, self.coordinate_range)


def write_reasoning(
    facts: Sequence[ObjectFacts], query: Query, keyframe: int, size: int, coordinate_range: int | None = None
) -> str:
    """Three lines, `Step 1: ...` to `Step 3: ...`: the events, the keyframe, and the locations with the target.

    Args:
        size: side in pixels of the student's square frames.
        coordinate_range: see `ToyTeacher`.
    """
    steps = (
        describe_video(facts),
        explain_keyframe(facts, query, keyframe),
        locate_targets(facts, query, keyframe, size, coordinate_range),
    )
    return "\n".join(f"Step {number}: {text}" for number, text in enumerate(steps, start=1))


def describe_video(facts: Sequence[ObjectFacts]) -> str:
    """Step 1: one clause per object about the whole video."""
    clauses = [f"the {fact.texture} {fact.name} {describe_behaviour(fact, facts)}" for fact in facts]
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."


def describe_behaviour(fact: ObjectFacts, facts: Sequence[ObjectFacts]) -> str:
    """What an object does, in a few words."""
    if fact.absence is not None:
        text = "goes away and comes back"
    elif fact.enters is not None and fact.leaves is not None:
        text = f"enters at {format_seconds(fact.enters)} and leaves after {format_seconds(fact.leaves)}"
    elif fact.enters is not None:
        text = f"enters at {format_seconds(fact.enters)}"
    elif fact.leaves is not None:
        text = f"leaves after {format_seconds(fact.leaves)}"
    elif fact.still:
        text = "never moves"
    elif fact.circles:
        text = "goes round in circles"
    else:
        text = f"moves {DIRECTION_PHRASES[fact.direction]}" if fact.direction else "moves about"
    if fact.hidden_behind is not None:
        text += f", hidden behind the {facts[fact.hidden_behind].name} at {format_seconds(fact.hidden[0])}"
    return text


def explain_keyframe(facts: Sequence[ObjectFacts], query: Query, keyframe: int) -> str:
    """Step 2: how the target differs from the other objects, and how much of it is visible in the keyframe."""
    shown = [facts[k] for k in query.targets if facts[k].visible_ratio[keyframe] > 0]
    if not query.targets:
        near = [fact.name for fact in facts if fact.visible_ratio[keyframe] > 0]
        seen = f"only {join_names(near)} can be seen" if near else "nothing can be seen"
        return f"{query.evidence} At {format_seconds(keyframe)}, the keyframe, {seen}."
    if not shown:
        return f"{query.evidence} At {format_seconds(keyframe)}, the keyframe, nothing of the target can be seen."
    amounts = {describe_visibility(fact.visible_ratio[keyframe]) for fact in shown}
    how = f"{amounts.pop() if len(amounts) == 1 else 'some'} of {join_names([fact.name for fact in shown])}"
    return f"{query.evidence} At {format_seconds(keyframe)} {how} can be seen, so {keyframe} is the keyframe."


def describe_visibility(visible_ratio: float) -> str:
    """A visible ratio in words."""
    return "all" if visible_ratio >= 0.95 else "most" if visible_ratio >= 0.6 else "a part"


def locate_targets(
    facts: Sequence[ObjectFacts], query: Query, keyframe: int, size: int, coordinate_range: int | None = None
) -> str:
    """Step 3: every visible object of the keyframe from left to right with its box, and which one is the target.

    The boxes are those of the answer: a policy first learns to detect objects one by one, and then to select from its
    own list.
    """
    if not query.targets:
        return "Nothing fits the description, so no object is to be located."
    boxes = {k: box for k, fact in enumerate(facts) if (box := fact.boxes[keyframe]) is not None}
    targets = [f"the {facts[k].name}" for k in query.targets if k in boxes]
    if not targets:
        return f"At {format_seconds(keyframe)} no target is in view, so none is to be located."
    seen = sorted(boxes, key=lambda k: boxes[k][0])
    locations = ", ".join(f"the {facts[k].name} {rounded_box(boxes[k], size, coordinate_range)}" for k in seen)
    return f"At {format_seconds(keyframe)} from left to right: {locations}. The target is {' and '.join(targets)}."


def rounded_box(box: Box, size: int, coordinate_range: int | None = None) -> list[int]:
    """A box of the scene as an answer gives it (`veason.masks.answer_box`), in whole numbers."""
    return [round(side) for side in answer_box(box, HEIGHT, WIDTH, size, coordinate_range)]
