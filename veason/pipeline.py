"""Think before you segment: sample frames -> prompt -> answer -> keyframe and boxes -> SAM 2 over the whole video ->
masks.

    segmenter = Segmenter(VLLMPolicy("checkpoint"), VideoTracker.from_files("configs/sam2.1/sam2.1_hiera_l.yaml",
    "sam2.1_hiera_large.pt")) result = segmenter.segment(frames, "the one that leaves first") result.masks,
    result.reading.thinking, result.reading.keyframe, result.reading.boxes

`frames` is any sequence of uint8 [H, W, 3] RGB frames of one size: a list, an array [T, H, W, 3], or one that reads its
files lazily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from veason.answers import parse_answer
from veason.frames import check_side, evaluation_frames, resize_frame
from veason.policy import Policy, Question
from veason.prompts import build_messages

if TYPE_CHECKING:
    from veason.tracking.sam2.tracker import Prompt, VideoTracker

Frames = Sequence[np.ndarray]
Box = tuple[int, int, int, int]

# Why an answer gives an empty mask, besides the causes that `veason.answers` names (the answer could not be read).
KEYFRAME_OUTSIDE, NO_TARGET = "keyframe_outside", "no_target"


@dataclass(frozen=True)
class Reading:
    """What an answer says about one video.

    Attributes:
        text: the whole answer, as the policy wrote it.
        thinking: its reasoning.
        keyframe: the chosen frame's index in the video; None where it could not be read.
        boxes: (x1, y1, x2, y2) on the keyframe, in pixels of the video.
        failure: why there is nothing to track and every mask is empty: a cause of `veason.answers`, `keyframe_outside`
            (of the video), or `no_target` (the policy says that nothing fits the expression: no fault in itself). None
            where there is something.
    """

    text: str
    thinking: str
    keyframe: int | None
    boxes: tuple[Box, ...]
    failure: str | None


@dataclass(frozen=True)
class Segmentation:
    """masks: bool [T, H, W], the union of the targets in every frame; shown: the frames that the policy saw."""

    masks: np.ndarray
    reading: Reading
    shown: list[int]


class Segmenter:
    """The policy and the tracker at work on one video at a time.

    Args:
        policy: answers questions; needed by `segment` and `segment_all` only.
        tracker: tracks boxes; as `policy`.
        sampled_frames: how many evenly spaced frames the policy sees.
        size: their side in pixels; boxes in an answer are in this square.
        prompt_template: the wording, where the weights want another than ours (see `veason.prompts`).
    """

    def __init__(
        self,
        policy: Policy,
        tracker: VideoTracker,
        sampled_frames: int = 8,
        size: int = 560,
        prompt_template: str | None = None,
    ) -> None:
        self.policy, self.tracker = policy, tracker
        check_side(size)
        self.sampled_frames, self.size, self.prompt_template = sampled_frames, size, prompt_template

    def segment(self, frames: Frames, expression: str) -> Segmentation:
        """The masks of what one expression means."""
        return self.segment_all(frames, [expression])[0]

    def segment_all(self, frames: Frames, expressions: Sequence[str]) -> list[Segmentation]:
        """The same for several expressions: the policy answers them at once."""
        shown = evaluation_frames(len(frames), self.sampled_frames)
        answers = self.policy.answers(self.questions(frames, expressions))
        shape = (len(frames), *frames[0].shape[:2])
        readings = [self.read(answer, shape) for answer in answers]
        results = []
        for reading, tracked in zip(readings, self.track_all(frames, readings)):
            masks = np.zeros(shape, bool)
            for index, mask in tracked:
                masks[index] = mask
            results.append(Segmentation(masks, reading, shown))
        return results

    def questions(
        self, frames: Frames, expressions: Sequence[str], names: Sequence[str] | None = None
    ) -> list[Question]:
        """What the policy is asked about one video: evenly spaced frames with their times, frame t as second t, then an
        expression.

        Args:
            names: of the samples, one an expression, for errors and seeds; the expressions themselves by default.
        """
        times = evaluation_frames(len(frames), self.sampled_frames)
        pictures, shown = [resize_frame(frames[t], self.size) for t in times], (self.size, self.size)
        return [
            Question(name, build_messages(expression, times, self.prompt_template, shown), pictures)
            for name, expression in zip(names or expressions, expressions, strict=True)
        ]

    def read(self, text: str, shape: tuple[int, int, int]) -> Reading:
        """An answer in terms of a video of shape (T, H, W). Never raises, whatever the policy wrote."""
        total, height, width = shape
        answer = parse_answer(text)
        scaled = [self._scale(box, height, width) for box in answer.boxes]
        boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in scaled if x1 < x2 and y1 < y2)
        failure = answer.failure
        if failure is None and not boxes:
            failure = NO_TARGET
        elif failure is None and (answer.keyframe is None or not 0 <= answer.keyframe < total):
            failure = KEYFRAME_OUTSIDE
        return Reading(text, answer.thinking, answer.keyframe, boxes, failure)

    def track(self, frames: Frames, reading: Reading) -> Iterator[tuple[int, np.ndarray]]:
        """(index, bool mask [H, W]) of every frame once, in the tracker's order, in memory that does not grow with the
        video.
        """
        if reading.failure is None:
            return iter(self.tracker.track_video(frames.__getitem__, len(frames), _prompt(reading)))
        empty = np.zeros(frames[0].shape[:2], bool)
        return ((index, empty) for index in range(len(frames)))

    def track_all(self, frames: Frames, readings: Sequence[Reading]) -> list[Iterator[tuple[int, np.ndarray]]]:
        """`track` for several answers about one video. A short one is tracked at once for all, a long one as masks are
        asked for.
        """
        found = [reading for reading in readings if reading.failure is None]
        if len(frames) > self.tracker.max_frames:
            return [self.track(frames, reading) for reading in readings]
        masks = iter(self.tracker.track_group(frames, [_prompt(reading) for reading in found]) if found else ())
        return [
            enumerate(next(masks)) if reading.failure is None else self.track(frames, reading) for reading in readings
        ]

    def _scale(self, box: Sequence[float], height: int, width: int) -> Box:
        """A box of the square that the policy sees, in whole pixels of the video and inside it."""
        ends = ((value * side / self.size, side) for value, side in zip(box, (width, height, width, height)))
        x1, y1, x2, y2 = (int(min(max(value + 0.5, 0), side)) for value, side in ends)
        return x1, y1, x2, y2


def _prompt(reading: Reading) -> Prompt:
    from veason.tracking.sam2.tracker import Prompt  # to ask and to read takes no SAM 2

    assert reading.keyframe is not None  # there is something to track
    return Prompt(reading.keyframe, np.array(reading.boxes, np.float32))
