"""What is tracked in a video for one expression: what an answer predicts, or the expression itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from veason.answers import BAD_BOXES, BAD_JSON, BAD_KEYFRAME, NO_ANSWER
from veason.prompts import clean_expression
from veason.tracking.tracker_prompts import BoxPrompt, MultiObjectPrompt, ObjectPrompt, Prompt, TextPrompt

Box = tuple[int, int, int, int]

# Why an answer gives an empty mask, besides the causes of `veason.answers` (the answer could not be parsed).
KEYFRAME_OUTSIDE, NO_TARGET = "keyframe_outside", "no_target"

FAILURE_MESSAGES = {
    NO_ANSWER: "the answer has no complete <answer> block",
    BAD_JSON: "the answer is no JSON object",
    BAD_KEYFRAME: "the answer names no keyframe",
    BAD_BOXES: "the answer names no box that can be used",
    KEYFRAME_OUTSIDE: "the answer names a keyframe that the video does not have",
    NO_TARGET: "the answer names no box: nothing in the video fits the expression",
}


@dataclass(frozen=True)
class Prediction:
    """What an answer predicts for one video, or the text that a tracker is given without a policy.

    Attributes:
        text: the whole answer, as the policy wrote it.
        thinking: its reasoning.
        keyframe: the chosen frame's index in the video; None where it could not be parsed.
        boxes: (x1, y1, x2, y2) on the keyframe, in pixels of the video.
        failure: why there is nothing to track and every mask is empty: a cause of `veason.answers`, `keyframe_outside`
            (of the video), or `no_target` (the policy says that nothing fits the expression: no fault in itself). None
            where boxes are tracked.
        text_prompt: what a tracker that takes text looks for; there is no answer, keyframe or box then.
        objects: of an answer with points, what is tracked of each object, in pixels of the video. Then `keyframe` is
            the first one, and `boxes` has one box an object: the first that is given, or one around its points.
    """

    text: str
    thinking: str
    keyframe: int | None
    boxes: tuple[Box, ...]
    failure: str | None
    text_prompt: str | None = None
    objects: tuple[ObjectPrompt, ...] = field(default=(), compare=False)

    @classmethod
    def from_expression(cls, expression: str) -> Prediction:
        """The prediction for a tracker that takes text, which no policy has made."""
        return cls("", "", None, (), None, clean_expression(expression))

    @property
    def object_prompts(self) -> list[Prompt]:
        """What the tracker is given, one prompt an object; a text alone stands for all of its objects."""
        if self.failure is not None:
            return []
        if self.text_prompt is not None:
            return [TextPrompt(self.text_prompt)]
        if self.objects:
            return [MultiObjectPrompt((item,)) for item in self.objects]
        assert self.keyframe is not None  # there is something to track
        return [BoxPrompt(self.keyframe, np.array([box], np.float32)) for box in self.boxes]

    @property
    def prompt(self) -> Prompt | None:
        """What the tracker is given for the union of the objects; None where there is nothing to track."""
        if self.failure is not None:
            return None
        if self.text_prompt is not None:
            return TextPrompt(self.text_prompt)
        if self.objects:
            return MultiObjectPrompt(self.objects)
        assert self.keyframe is not None
        return BoxPrompt(self.keyframe, np.array(self.boxes, np.float32))

    def describe(self, number: int) -> str:
        """What is given of one object, in words."""
        if not self.objects:
            return f"box {list(self.boxes[number])}, pixels of the video"
        given = []
        for each in self.objects[number]:
            points = f"{len(each.points)} point{'' if len(each.points) == 1 else 's'}" if len(each.points) else ""
            parts = " and ".join(filter(None, ("box" if each.box is not None else "", points)))
            given.append(f"{parts} on frame {each.frame}")
        return ", ".join(given)

    @property
    def outcome(self) -> str:
        """What was found, or why nothing was, as a phrase."""
        if self.text_prompt is not None:
            return "what the tracker found by the expression alone"
        if self.failure is not None:
            return FAILURE_MESSAGES.get(self.failure, self.failure)
        several = sorted({each.frame for item in self.objects for each in item})
        keyframes = f"keyframes {', '.join(map(str, several))}" if len(several) > 1 else f"keyframe {self.keyframe}"
        return f"{len(self.boxes)} object{'s' if len(self.boxes) > 1 else ''}, {keyframes}"
