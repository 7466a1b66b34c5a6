"""Segments one video: sample frames -> prompt -> answer -> keyframe and boxes -> tracker over the whole video -> masks.

segmenter = Segmenter.from_pretrained("checkpoint", tracker_options={"checkpoint": "sam2.1_hiera_large.pt"})
result = segmenter.segment("clip.mp4", "the one that leaves first")
result.masks, result.prediction.thinking, result.prediction.keyframe, result.prediction.boxes
result.save("result")                # masks, overlay video and a page
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veason.answer_parsers import ANSWER_PARSERS
from veason.errors import DataError
from veason.frames import TIMESTAMP_MODES, check_pixel_multiple, evaluation_frames, resize_frame, shown_timestamps
from veason.inference.model_options import ModelOptions
from veason.inference.prediction import Prediction
from veason.inference.prediction_parser import PredictionParser
from veason.inference.vllm_policy import ChatPrompt, InferencePolicy
from veason.library_output import quiet_loading
from veason.masks import Rle, encode
from veason.progress_bar import Progress, no_progress
from veason.prompts import build_messages, clean_expression
from veason.results.segmentation import Frames, Segmentation
from veason.tracking import DEFAULT
from veason.tracking.base import Tracker
from veason.video.sources import FOLDER_FPS, Video, as_frames


class Segmenter:
    """A policy and a tracker, applied to one video at a time.

    Args:
        policy: answers prompts; needed by `segment` and `segment_all` only. None for a tracker that takes text.
        tracker: tracks the answers' boxes, or finds the objects of the expression itself; see `veason.tracking`.
        sampled_frames: how many evenly spaced frames the policy sees.
        size: their side in pixels.
        prompt_template: another wording than the default (see `veason.prompts`).
        answer_parser: a name of `veason.answer_parsers.ANSWER_PARSERS`.
        timestamp_mode: what a frame's timestamp is (see `veason.frames.shown_timestamps`).
        notice: a sentence about the models that the page of every result shows; "" for none.

    Attributes:
        takes_text: whether the tracker is given the expressions, and no policy is asked.
        coordinate_range: answers' coordinates are from 0 to this, by the policy's `model_info`; None: pixels of the
            frames that it sees.
    """

    def __init__(
        self,
        policy: InferencePolicy | None,
        tracker: Tracker,
        sampled_frames: int = 8,
        size: int = 560,
        prompt_template: str | None = None,
        answer_parser: str = "strict",
        timestamp_mode: str = TIMESTAMP_MODES[0],
        notice: str = "",
    ) -> None:
        self.policy, self.tracker = policy, tracker
        self.takes_text = bool(getattr(tracker, "takes_text", False))
        if self.takes_text and policy is not None:
            raise DataError(f"{type(tracker).__name__} finds objects by the expression: it is used without a policy")
        info = getattr(policy, "model_info", None)
        if info is not None:
            check_pixel_multiple(size, info.pixel_multiple)
        self.coordinate_range: int | None = None if info is None else info.coordinate_range
        self.sampled_frames, self.size, self.prompt_template = sampled_frames, size, prompt_template
        self.answer_parser, self.timestamp_mode, self.notice = ANSWER_PARSERS[answer_parser], timestamp_mode, notice

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        tracker: str | Tracker = DEFAULT,
        tracker_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Segmenter:
        """Load a policy and a tracker, after everything about them that can be checked has been.

        What the libraries print and warn of meanwhile is shown only where loading fails.

        Args:
            model: a checkpoint folder or its name on the hub; None: the shipped toy models, which know drawn shapes
                only, or no policy where the tracker takes text.
            tracker: a name of `veason.tracking`, `package.module:name`, or a tracker.
            tracker_options: the tracker's own; for sam2 `checkpoint`, and `config` where it cannot be told from it.
            settings: the other fields of `ModelOptions` (`veason.inference.model_options`), such as `temperature`.

        Raises:
            DataError: in one line, what is missing or does not fit.
        """
        if not isinstance(tracker, str) and getattr(tracker, "takes_text", False):
            return cls(None, tracker)
        named = tracker if isinstance(tracker, str) else None
        options = ModelOptions(model, named or DEFAULT, dict(tracker_options or {}), **settings)
        options.check(needs_tracker=named is not None)
        for warning in options.warnings:
            warnings.warn(warning, stacklevel=2)
        with quiet_loading():
            found = options.load_tracker() if isinstance(tracker, str) else tracker
            policy = options.load_policy()
        return cls(policy, found, **options.segmenter_options)

    def segment(
        self, video: Video, expression: str, fps: float | None = None, progress: Progress = no_progress
    ) -> Segmentation:
        """The masks of what one expression refers to.

        Args:
            video: see `veason.video.sources.as_frames`.
            expression: what to find.
            fps: frames a second to keep of a video file; all by default.
            progress: shows how far decoding, thinking and tracking have come.

        Raises:
            DataError: the video or the expression cannot be used; before the policy is asked.
        """
        return self.segment_all(video, [expression], fps, progress)[0]

    def segment_all(
        self, video: Video, expressions: Sequence[str], fps: float | None = None, progress: Progress = no_progress
    ) -> list[Segmentation]:
        """`segment` for several expressions, which the policy answers as one batch."""
        check_expressions(expressions)
        started = time.perf_counter()
        frames = as_frames(video, fps, progress)
        decoded = time.perf_counter()
        answers = self.generate_answers(frames, expressions, progress)
        seconds = {"decoding": decoded - started, "thinking": time.perf_counter() - decoded}
        return self.track_answers(frames, expressions, answers, seconds, progress)

    def generate_answers(
        self, frames: Frames, expressions: Sequence[str], progress: Progress = no_progress
    ) -> list[str]:
        """The policy's answers, one an expression; empty ones where there is no policy."""
        if self.takes_text:
            return [""] * len(expressions)
        assert self.policy is not None
        prompts, stream = self.build_prompts(frames, expressions), getattr(self.policy, "stream", None)
        if stream is None:
            return self.policy.generate(prompts)
        most = self.policy.sampling.max_tokens  # type: ignore[attr-defined]
        return deque(progress(stream(prompts), "words written", most), maxlen=1).pop()

    def track_answers(
        self,
        frames: Frames,
        expressions: Sequence[str],
        answers: Sequence[str],
        seconds: Mapping[str, float] | None = None,
        progress: Progress = no_progress,
    ) -> list[Segmentation]:
        """Parse and track answers; `seconds` are those of the stages before, for the results."""
        started, shape = time.perf_counter(), (len(frames), *frames[0].shape[:2])
        predictions = self.parse_answers(expressions, answers, shape)
        tracks = self.track_objects(frames, predictions, progress)
        took = {**(seconds or {}), "tracking": time.perf_counter() - started}
        shown, fps = self.shown_frames(len(frames)), getattr(frames, "fps", FOLDER_FPS)
        return [
            Segmentation(
                expression,
                prediction,
                objects,
                shown,
                frames,
                fps,
                took,
                notice=self.notice,
                unit_explanation=self.unit_explanation,
            )
            for expression, prediction, objects in zip(expressions, predictions, tracks, strict=True)
        ]

    def shown_frames(self, total: int) -> list[int]:
        """The frames of a video that the policy sees."""
        return [] if self.takes_text else evaluation_frames(total, self.sampled_frames)

    @property
    def unit_explanation(self) -> str:
        """What a second and a box in the policy's reasoning mean, for people who read it; "" without a policy."""
        if self.takes_text:
            return ""
        second = (
            "a second means a frame of the video, as in training: “At 2 seconds” is frame 2"
            if self.timestamp_mode == TIMESTAMP_MODES[0]
            else "a second means a position among the frames that the policy saw, as in training"
        )
        seen = f"of the {self.size} x {self.size} picture that the policy saw, not of the video"
        end = self.coordinate_range
        units = f"pixels {seen}" if end is None else f"parts of {end} of the sides {seen}"
        return f"In the reasoning {second}; boxes are in {units}."

    def build_prompts(
        self, frames: Frames, expressions: Sequence[str], names: Sequence[str] | None = None
    ) -> list[ChatPrompt]:
        """The policy's prompts about a video, frame t as second t; `names` of the samples are for errors and seeds."""
        indices = evaluation_frames(len(frames), self.sampled_frames)
        pictures, shown = [resize_frame(frames[t], self.size) for t in indices], (self.size, self.size)
        timestamps = shown_timestamps(indices, self.timestamp_mode)
        return [
            ChatPrompt(
                name,
                build_messages(expression, timestamps, self.prompt_template, shown, self.coordinate_range),
                pictures,
            )
            for name, expression in zip(names or expressions, expressions, strict=True)
        ]

    def parse_answers(
        self, expressions: Sequence[str], answers: Sequence[str], shape: tuple[int, int, int]
    ) -> list[Prediction]:
        """What is tracked for each expression: its answer's boxes, or the expression where there is no policy."""
        if self.takes_text:
            return [Prediction.from_expression(expression) for expression in expressions]
        return [self.parse_answer(answer, shape) for answer in answers]

    def parse_answer(self, text: str, shape: tuple[int, int, int]) -> Prediction:
        """An answer as a prediction for a video of shape (T, H, W). Never raises, whatever the policy wrote."""
        reader = PredictionParser(
            self.answer_parser, self.size, self.coordinate_range, self.sampled_frames, self.timestamp_mode
        )
        return reader.parse(text, shape)

    def track(self, frames: Frames, prediction: Prediction) -> Iterator[tuple[int, np.ndarray]]:
        """(index, bool mask [H, W]) of every frame once, in the tracker's order, in bounded memory."""
        if (prompt := prediction.prompt) is not None:
            return iter(self.tracker.track_video(frames.__getitem__, len(frames), prompt))
        empty = np.zeros(frames[0].shape[:2], bool)
        return ((index, empty) for index in range(len(frames)))

    def track_all(self, frames: Frames, predictions: Sequence[Prediction]) -> list[Iterator[tuple[int, np.ndarray]]]:
        """`track` for several predictions about one video.

        A video of up to `tracker.max_frames` is tracked at once for all; a longer one as masks are asked for.
        """
        if len(frames) > self.tracker.max_frames:
            return [self.track(frames, prediction) for prediction in predictions]
        prompts = [prediction.prompt for prediction in predictions]
        given = [prompt for prompt in prompts if prompt is not None]
        masks = iter(self.tracker.track_group(frames, given) if given else ())
        return [
            self.track(frames, prediction) if prompt is None else enumerate(next(masks))
            for prediction, prompt in zip(predictions, prompts)
        ]

    def track_objects(
        self, frames: Frames, predictions: Sequence[Prediction], progress: Progress = no_progress
    ) -> list[list[list[Rle]]]:
        """Per prediction and object its mask in every frame, as RLE.

        Objects on a video of up to `tracker.max_frames` are tracked at once, unless there is one alone; a longer video
        is streamed for each.
        """
        prompts = [prompt for prediction in predictions for prompt in prediction.object_prompts]
        if not prompts:
            return [[] for _ in predictions]
        total, read = len(frames), frames.__getitem__
        if len(prompts) > 1 and total <= self.tracker.max_frames:
            groups = self.tracker.track_group(frames, prompts)
            found = (pair for masks in groups for pair in enumerate(masks))
        else:
            found = (pair for prompt in prompts for pair in self.tracker.track_video(read, total, prompt))
        tracks: list[list[Rle]] = [[{}] * total for _ in prompts]
        for number, (index, mask) in enumerate(progress(found, "tracking", len(prompts) * total)):
            tracks[number // total][index] = encode(mask)
        remaining = iter(tracks)
        return [[next(remaining) for _ in prediction.object_prompts] for prediction in predictions]


def check_expressions(expressions: Sequence[str]) -> None:
    """Refuse what is no expression. Raises DataError."""
    if isinstance(expressions, str):
        raise DataError("expressions are a list; `segment` takes one")
    if not expressions:
        raise DataError("no expression is given")
    for expression in expressions:
        if not isinstance(expression, str):
            raise DataError(f"an expression is a text, not of type {type(expression).__name__}")
        if not clean_expression(expression):
            raise DataError(f"the expression {expression!r} is empty")
