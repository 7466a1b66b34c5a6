"""The boxes and points that somebody draws on a frame by clicking, and the picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from veason.labels import write_label
from veason.pictures import draw_boxes
from veason.prediction.overlay import object_colour
from veason.segmentation import Box, Segmentation
from veason.tracking.prompts import FramePrompt

BOX, ON_OBJECT, BESIDE = "box", "point on the object", "point beside it"
MODES = (BOX, ON_OBJECT, BESIDE)
NEW = "a new object"
Point = tuple[int, int]


@dataclass(frozen=True)
class EditedObject:
    """One object on the frame that is edited, in pixels of the video.

    Attributes:
        box: x1, y1, x2, y2.
        points: ((x, y), whether it is on the object).
    """

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
class Edits:
    """The objects on one frame, and the first corner of a box that is not finished.

    Attributes:
        frame: the frame's index.
    """

    frame: int
    objects: tuple[EditedObject, ...] = ()
    corner: Point | None = None

    @classmethod
    def of(cls, result: Segmentation) -> Edits:
        """The boxes of a result on its keyframe; the first frame without any where it found nothing."""
        prediction = result.prediction
        if prediction.failure is not None or prediction.keyframe is None:
            return cls(0)
        return cls(prediction.keyframe, tuple(EditedObject(box) for box in prediction.boxes))

    @property
    def names(self) -> list[str]:
        """What a click can belong to: each object, or a new one."""
        return [NEW, *(f"object {number + 1}" for number in range(len(self.objects)))]

    def click(self, x: int, y: int, mode: str, target: str) -> tuple[Edits, str]:
        """A click at a pixel of the video.

        Args:
            mode: of `MODES`. The second click of a box is the corner opposite to the first.
            target: of `names`; a name that is not there is a new object.

        Returns:
            The edits, and the name of the object that the next click belongs to.
        """
        if mode == BOX and self.corner is None:
            return replace(self, corner=(x, y)), target
        names = self.names
        number = names.index(target) - 1 if target in names[1:] else len(self.objects)
        edited = self.objects[number] if number < len(self.objects) else EditedObject()
        if mode == BOX:
            assert self.corner is not None
            (x1, x2), (y1, y2) = (sorted(pair) for pair in zip(self.corner, (x, y)))
            edited = replace(edited, box=(x1, y1, x2 + 1, y2 + 1))
        else:
            edited = replace(edited, points=(*edited.points, ((x, y), mode == ON_OBJECT)))
        objects = (*self.objects[:number], edited, *self.objects[number + 1 :])
        return Edits(self.frame, objects), f"object {number + 1}" if mode != BOX else NEW

    def remove(self, target: str) -> Edits:
        """Without an object; a name that is not there removes all."""
        names = self.names
        if target not in names[1:]:
            return Edits(self.frame)
        number = names.index(target) - 1
        return Edits(self.frame, (*self.objects[:number], *self.objects[number + 1 :]))

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
        if self.corner is not None:
            x, y = (round((side + 0.5) * scale) for side in self.corner)
            cv2.drawMarker(out, (x, y), (255, 255, 255), cv2.MARKER_CROSS, 4 * radius, 2)
        return out
