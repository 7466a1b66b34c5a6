"""The boxes and points that somebody draws on a frame, and the picture of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from veason.errors import DataError
from veason.inference.prediction import Box
from veason.results.overlay import object_colour
from veason.results.segmentation import Segmentation
from veason.tracking.tracker_prompts import FramePrompt
from veason.visualization.drawing import draw_boxes
from veason.visualization.text import write_label

ON_OBJECT, BESIDE_OBJECT = "point on the object", "point beside it"
POINT_KINDS = (ON_OBJECT, BESIDE_OBJECT)
NEW_OBJECT = "a new object"
Point = tuple[int, int]


@dataclass(frozen=True)
class EditedObject:
    """One object on the frame that is edited, in pixels of the video; a point is ((x, y), is on the object)."""

    box: Box | None = None
    points: tuple[tuple[Point, bool], ...] = ()

    def prompt(self, frame: int) -> FramePrompt:
        """What the tracker is asked for."""
        return FramePrompt(
            frame,
            None if self.box is None else np.array(self.box, dtype=np.float64),
            np.array([point for point, _ in self.points], dtype=np.float64).reshape(-1, 2),
            np.array([int(on) for _, on in self.points], dtype=int),
        )


@dataclass(frozen=True)
class FrameEdits:
    """The objects on one frame, which is given by its index."""

    frame: int
    objects: tuple[EditedObject, ...] = ()

    @classmethod
    def from_result(cls, result: Segmentation) -> FrameEdits:
        """The boxes of a result on its keyframe; the first frame without any where it found nothing."""
        prediction = result.prediction
        if prediction.failure is not None or prediction.keyframe is None:
            return cls(0)
        return cls(prediction.keyframe, tuple(EditedObject(box) for box in prediction.boxes))

    @property
    def names(self) -> list[str]:
        """What a box or a point can belong to: a new object, or each that is there."""
        return [NEW_OBJECT, *map(object_name, range(len(self.objects)))]

    def add_box(self, box: Box, target: str) -> FrameEdits:
        """The box of an object; it replaces the one that the object has. A name that is not there is a new object."""
        return self._replace_object(target, box=box)

    def add_point(self, point: Point, kind: str, target: str) -> tuple[FrameEdits, str]:
        """Another point of an object.

        Args:
            kind: of `POINT_KINDS`.
            target: of `names`; a name that is not there is a new object.

        Returns:
            The edits, and the name of the object.
        """
        number = self._object_index(target)
        points = self.objects[number].points if number < len(self.objects) else ()
        return self._replace_object(target, points=(*points, (point, kind == ON_OBJECT))), object_name(number)

    def _object_index(self, target: str) -> int:
        names = self.names[1:]
        return names.index(target) if target in names else len(names)

    def _replace_object(self, target: str, **changed: Any) -> FrameEdits:
        number = self._object_index(target)
        edited = self.objects[number] if number < len(self.objects) else EditedObject()
        objects = (*self.objects[:number], replace(edited, **changed), *self.objects[number + 1 :])
        return replace(self, objects=objects)

    def remove(self, target: str) -> FrameEdits:
        """Without an object; a name that is not there removes all."""
        number = self._object_index(target)
        if number == len(self.objects):
            return FrameEdits(self.frame)
        return FrameEdits(self.frame, (*self.objects[:number], *self.objects[number + 1 :]))

    def prompts(self) -> list[FramePrompt]:
        return [edited.prompt(self.frame) for edited in self.objects]

    def draw(self, picture: np.ndarray, scale: int) -> np.ndarray:
        """A copy of the frame's picture, uint8 [scale * H, scale * W, 3] RGB, with boxes and points."""
        out = picture.copy()
        radius = max(4, min(picture.shape[:2]) // 90)
        for number, edited in enumerate(self.objects):
            colour = object_colour(number)
            place: Sequence[float] = edited.points[0][0] if edited.points else (0, 0)
            if edited.box is not None:
                out, place = draw_boxes(out, np.array([edited.box]) * scale, colour), edited.box
            write_label(out, f"{number + 1}", (round(place[0] * scale), round(place[1] * scale)), size=4 * radius)
            for (x, y), on in edited.points:
                middle = round((x + 0.5) * scale), round((y + 0.5) * scale)
                cv2.circle(out, middle, radius + 2, (0, 0, 0), -1)
                cv2.circle(out, middle, radius, colour if on else (255, 255, 255), -1 if on else 2)
        return out


def object_name(number: int) -> str:
    """The name of an object, which is counted from 1."""
    return f"object {number + 1}"


def pixel_at(place: object, size: tuple[int, int]) -> Point:
    """The pixel, x and y, at a place of the frame.

    Args:
        place: x, y as fractions of width and height, as a browser sends them.
        size: of the frame, height and width.

    Raises:
        DataError: these are no two numbers.
    """
    x, y = _fractions(place, 2)
    height, width = size
    return min(int(x * width), width - 1), min(int(y * height), height - 1)


def box_at(corners: object, size: tuple[int, int]) -> Box:
    """The box, x1, y1, x2, y2 in pixels and at least one wide and high, as `pixel_at` has a pixel."""
    x1, y1, x2, y2 = _fractions(corners, 4)
    height, width = size
    left, right = _side(x1, x2, width)
    top, bottom = _side(y1, y2, height)
    return left, top, right, bottom


def _side(first: float, second: float, length: int) -> tuple[int, int]:
    low = min(round(min(first, second) * length), length - 1)
    return low, max(round(max(first, second) * length), low + 1)


def _fractions(values: object, count: int) -> list[float]:
    """Numbers of 0 to 1; those outside are moved to the nearest. Raises DataError."""
    given = values if isinstance(values, list) else []
    numbers = [float(value) for value in given if isinstance(value, int | float) and math.isfinite(value)]
    if len(numbers) != count or len(given) != count:
        raise DataError(f"{count} numbers are needed, not {values!r:.80}")
    return [min(max(number, 0.0), 1.0) for number in numbers]
