"""An answer read for one video: its timestamps as frames, its boxes and points in pixels of the video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from veason.answers import Answer, ObjectKeyframe
from veason.frames import TIMESTAMP_MODES, evaluation_frames
from veason.inference.prediction import KEYFRAME_OUTSIDE, NO_TARGET, Box, Prediction
from veason.tracking.tracker_prompts import FramePrompt, ObjectPrompt


@dataclass(frozen=True)
class PredictionParser:
    """How answers about frames of one size are read."""

    read: Callable[[str], Answer]  # text -> Answer, of `veason.answer_parsers.ANSWER_PARSERS`
    size: int  # side of the square frames that were shown, pixels
    coordinate_range: int | None  # answers' coordinates are from 0 to this; None: pixels of the frames
    sampled_frames: int  # how many evenly spaced frames were shown
    timestamp_mode: str  # what a frame's timestamp was (see `veason.frames.shown_timestamps`)

    def parse(self, text: str, shape: tuple[int, int, int]) -> Prediction:
        """An answer as a prediction for a video of shape (T, H, W). Never raises, whatever the policy wrote."""
        total, height, width = shape
        answer = self.read(text)
        if answer.objects:
            return self._parse_objects(text, answer, shape)
        scaled = [self._scale(box, height, width) for box in answer.boxes]
        boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in scaled if x1 < x2 and y1 < y2)
        failure, keyframe = answer.failure, self._frame_at(answer.keyframe_timestamp, total)
        if failure is None and not boxes:
            failure = NO_TARGET
        elif failure is None and (keyframe is None or not 0 <= keyframe < total):
            failure = KEYFRAME_OUTSIDE
        return Prediction(text, answer.thinking, keyframe, boxes, failure)

    def _parse_objects(self, text: str, answer: Answer, shape: tuple[int, int, int]) -> Prediction:
        """`parse` of an answer with points: entries outside the video, or without anything to track, are left out."""
        total, height, width = shape
        inside, objects = False, []
        for item in answer.objects:
            entries = [(each, self._frame_at(each.timestamp, total)) for each in item]
            shown = [(each, frame) for each, frame in entries if frame is not None and 0 <= frame < total]
            inside = inside or bool(shown)
            prompts = [self._frame_prompt(each, frame, height, width) for each, frame in shown]
            if usable := tuple(each for each in prompts if each.is_usable):
                objects.append(usable)
        if not objects:
            failure = NO_TARGET if inside else KEYFRAME_OUTSIDE
            return Prediction(text, answer.thinking, self._frame_at(answer.keyframe_timestamp, total), (), failure)
        boxes = tuple(_extent(item, height, width) for item in objects)
        return Prediction(text, answer.thinking, objects[0][0].frame, boxes, None, objects=tuple(objects))

    def _frame_prompt(self, entry: ObjectKeyframe, frame: int, height: int, width: int) -> FramePrompt:
        """An entry of an answer in pixels of the video; points outside it are left out, and a box without an area."""
        box = None if entry.box is None else self._scale(entry.box, height, width)
        box = box if box is not None and box[0] < box[2] and box[1] < box[3] else None
        points, square = [], self.coordinate_range or self.size
        for label, given in ((1, entry.points), (0, entry.negative_points)):
            scaled = ((x * width / square, y * height / square) for x, y in given)
            points += [(x, y, label) for x, y in scaled if 0 <= x < width and 0 <= y < height]
        places = np.array(points, dtype=np.float64).reshape(-1, 3)
        corners = None if box is None else np.array(box, dtype=np.float64)
        return FramePrompt(frame, corners, places[:, :2], places[:, 2].astype(int))

    def _frame_at(self, timestamp: int | None, total: int) -> int | None:
        """The index in the video of a timestamp in an answer; a position that was not shown is outside the video."""
        if timestamp is None or self.timestamp_mode == TIMESTAMP_MODES[0]:
            return timestamp
        indices = evaluation_frames(total, self.sampled_frames)
        return indices[timestamp] if 0 <= timestamp < len(indices) else -1

    def _scale(self, box: Sequence[float], height: int, width: int) -> Box:
        """A box of an answer in whole pixels of the video, clipped to it."""
        square = self.coordinate_range or self.size
        ends = ((value * side / square, side) for value, side in zip(box, (width, height, width, height)))
        x1, y1, x2, y2 = (int(min(max(value + 0.5, 0), side)) for value, side in ends)
        return x1, y1, x2, y2


def _extent(item: ObjectPrompt, height: int, width: int) -> Box:
    """The first box of an object, or a box around its first points; whole pixels."""
    for each in item:
        if each.box is not None:
            x1, y1, x2, y2 = (int(side) for side in each.box)
            return x1, y1, x2, y2
    points = item[0].points[item[0].labels == 1].astype(int)
    (x1, y1), (x2, y2) = points.min(0), points.max(0) + 1
    return int(x1), int(y1), int(min(x2, width)), int(min(y2, height))
