"""Segments one video: sample frames -> prompt -> answer -> keyframe and boxes -> tracker over the whole video -> masks.

    tracker = build_tracker("sam2", "cuda", config="configs/sam2.1/sam2.1_hiera_l.yaml", checkpoint="sam2.1_large.pt")
    result = Segmenter(VLLMPolicy("checkpoint"), tracker).segment(frames, "the one that leaves first")
    result.masks, result.prediction.thinking, result.prediction.keyframe, result.prediction.boxes

`frames` is any sequence of uint8 [H, W, 3] RGB frames of one size: a list, an array [T, H, W, 3], or one that reads its
files lazily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from veason.answers import parse_answer
from veason.frames import check_side, evaluation_frames, resize_frame
from veason.policy import Policy, Question
from veason.prompts import build_messages
from veason.tracking.base import BoxPrompt, Tracker

Frames = Sequence[np.ndarray]
Box = tuple[int, int, int, int]

# Why an answer gives an empty mask, besides the causes of `veason.answers` (the answer could not be parsed).
KEYFRAME_OUTSIDE, NO_TARGET = "keyframe_outside", "no_target"


@dataclass(frozen=True)
class Prediction:
    """What an answer predicts for one video.

    Attributes:
        text: the whole answer, as the policy wrote it.
        thinking: its reasoning.
        keyframe: the chosen frame's index in the video; None where it could not be parsed.
        boxes: (x1, y1, x2, y2) on the keyframe, in pixels of the video.
        failure: why there is nothing to track and every mask is empty: a cause of `veason.answers`, `keyframe_outside`
            (of the video), or `no_target` (the policy says that nothing fits the expression: no fault in itself). None
            where boxes are tracked.
    """

    text: str
    thinking: str
    keyframe: int | None
    boxes: tuple[Box, ...]
    failure: str | None


@dataclass(frozen=True)
class Segmentation:
    """The result for one expression.

    Attributes:
        masks: bool [T, H, W], the union of the targets in every frame.
        prediction: the answer behind them.
        shown: the frames that the policy saw.
    """

    masks: np.ndarray
    prediction: Prediction
    shown: list[int]


class Segmenter:
    """A policy and a tracker, applied to one video at a time.

    Args:
        policy: answers questions; needed by `segment` and `segment_all` only.
        tracker: tracks the answers' boxes; see `veason.tracking`.
        sampled_frames: how many evenly spaced frames the policy sees.
        size: their side in pixels.
        prompt_template: another wording than the default (see `veason.prompts`).

    Attributes:
        box_side: side of the square that answers give boxes in, by the policy's `model_info`; None: pixels of the
            frames that it sees.
    """

    def __init__(
        self,
        policy: Policy,
        tracker: Tracker,
        sampled_frames: int = 8,
        size: int = 560,
        prompt_template: str | None = None,
    ) -> None:
        self.policy, self.tracker = policy, tracker
        info = getattr(policy, "model_info", None)
        if info is not None:
            check_side(size, info.pixel_multiple)
        self.box_side: int | None = None if info is None else info.box_side
        self.sampled_frames, self.size, self.prompt_template = sampled_frames, size, prompt_template

    def segment(self, frames: Frames, expression: str) -> Segmentation:
        """The masks of what one expression refers to."""
        return self.segment_all(frames, [expression])[0]

    def segment_all(self, frames: Frames, expressions: Sequence[str]) -> list[Segmentation]:
        """`segment` for several expressions, which the policy answers as one batch."""
        shown = evaluation_frames(len(frames), self.sampled_frames)
        answers = self.policy.generate(self.questions(frames, expressions))
        shape = (len(frames), *frames[0].shape[:2])
        predictions = [self.parse(answer, shape) for answer in answers]
        results = []
        for prediction, tracked in zip(predictions, self.track_all(frames, predictions)):
            masks = np.zeros(shape, bool)
            for index, mask in tracked:
                masks[index] = mask
            results.append(Segmentation(masks, prediction, shown))
        return results

    def questions(
        self, frames: Frames, expressions: Sequence[str], names: Sequence[str] | None = None
    ) -> list[Question]:
        """The policy's prompts about one video: evenly spaced frames, frame t as second t, then an expression.

        Args:
            names: of the samples, one an expression, for errors and seeds; the expressions themselves by default.
        """
        times = evaluation_frames(len(frames), self.sampled_frames)
        pictures, shown = [resize_frame(frames[t], self.size) for t in times], (self.size, self.size)
        return [
            Question(name, build_messages(expression, times, self.prompt_template, shown, self.box_side), pictures)
            for name, expression in zip(names or expressions, expressions, strict=True)
        ]

    def parse(self, text: str, shape: tuple[int, int, int]) -> Prediction:
        """An answer as a prediction for a video of shape (T, H, W). Never raises, whatever the policy wrote."""
        total, height, width = shape
        answer = parse_answer(text)
        scaled = [self._scale(box, height, width) for box in answer.boxes]
        boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in scaled if x1 < x2 and y1 < y2)
        failure = answer.failure
        if failure is None and not boxes:
            failure = NO_TARGET
        elif failure is None and (answer.keyframe is None or not 0 <= answer.keyframe < total):
            failure = KEYFRAME_OUTSIDE
        return Prediction(text, answer.thinking, answer.keyframe, boxes, failure)

    def track(self, frames: Frames, prediction: Prediction) -> Iterator[tuple[int, np.ndarray]]:
        """(index, bool mask [H, W]) of every frame once, in the tracker's order, in bounded memory."""
        if prediction.failure is None:
            return iter(self.tracker.track_video(frames.__getitem__, len(frames), _box_prompt(prediction)))
        empty = np.zeros(frames[0].shape[:2], bool)
        return ((index, empty) for index in range(len(frames)))

    def track_all(self, frames: Frames, predictions: Sequence[Prediction]) -> list[Iterator[tuple[int, np.ndarray]]]:
        """`track` for several predictions about one video.

        A video of up to `tracker.max_frames` is tracked at once for all; a longer one as masks are asked for.
        """
        if len(frames) > self.tracker.max_frames:
            return [self.track(frames, prediction) for prediction in predictions]
        prompts = [_box_prompt(prediction) for prediction in predictions if prediction.failure is None]
        masks = iter(self.tracker.track_group(frames, prompts) if prompts else ())
        return [
            enumerate(next(masks)) if prediction.failure is None else self.track(frames, prediction)
            for prediction in predictions
        ]

    def _scale(self, box: Sequence[float], height: int, width: int) -> Box:
        """A box of an answer in whole pixels of the video, clipped to it."""
        square = self.box_side or self.size
        ends = ((value * side / square, side) for value, side in zip(box, (width, height, width, height)))
        x1, y1, x2, y2 = (int(min(max(value + 0.5, 0), side)) for value, side in ends)
        return x1, y1, x2, y2


def _box_prompt(prediction: Prediction) -> BoxPrompt:
    assert prediction.keyframe is not None  # there is something to track
    return BoxPrompt(prediction.keyframe, np.array(prediction.boxes, np.float32))
