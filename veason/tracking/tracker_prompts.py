"""What a tracker is asked for: boxes on one frame, objects with boxes and points on several, or a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

MAX_COORDINATE = 1e30  # pixels; much farther out a box overflows SAM 2's encoding of its corners


@dataclass(frozen=True)
class FramePrompt:
    """One object on one frame, its keyframe; at least a box or a positive point.

    Attributes:
        frame: the frame's index.
        box: float [4], x1 y1 x2 y2 in pixels of the frames; None: points alone.
        points: float [P, 2], x y in pixels of the frames.
        labels: int [P], 1 for a point on the object, 0 for one beside it.
    """

    frame: int
    box: np.ndarray | None = None
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def scaled(self, factors: np.ndarray) -> FramePrompt:
        """The same prompt in another grid; `factors`, float64 [2], are those of x and y."""
        with np.errstate(over="ignore", invalid="ignore"):
            box = None if self.box is None else np.asarray(self.box, dtype=np.float64) * np.tile(factors, 2)
            return FramePrompt(self.frame, box, np.asarray(self.points, dtype=np.float64) * factors, self.labels)

    @property
    def is_usable(self) -> bool:
        """Whether there is a box or a positive point, and every coordinate is finite and below `MAX_COORDINATE`."""
        if self.box is None and not np.any(np.asarray(self.labels) == 1):
            return False
        coordinates = np.concatenate((np.ravel(() if self.box is None else self.box), np.ravel(self.points)))
        return bool((np.abs(coordinates) <= MAX_COORDINATE).all())  # NaN is not

    @property
    def corners_and_points(self) -> tuple[np.ndarray, np.ndarray]:
        """float64 [Q, 2] and int [Q]: the box's two corners with SAM 2's labels 2 and 3, then the points.

        Source: facebookresearch/sam2 `sam2/sam2_video_predictor.py`, `add_new_points_or_box`.
        """
        points, labels = np.asarray(self.points, dtype=np.float64).reshape(-1, 2), np.asarray(self.labels, dtype=int)
        if self.box is None:
            return points, labels
        corners = np.asarray(self.box, dtype=np.float64).reshape(2, 2)
        return np.concatenate((corners, points)), np.concatenate(([2, 3], labels))

    def to_json(self) -> dict[str, Any]:
        """Numbers and lists: frame, box (or null), points, labels."""
        box = None if self.box is None else np.asarray(self.box, dtype=float).tolist()
        points, labels = np.asarray(self.points, dtype=float), np.asarray(self.labels, dtype=int)
        return {"frame": self.frame, "box": box, "points": points.tolist(), "labels": labels.tolist()}


ObjectPrompt: TypeAlias = tuple[FramePrompt, ...]  # one object; each keyframe once, in the order of the video


@dataclass(frozen=True)
class BoxPrompt:
    """Boxes on one frame, one object each; the mask of a prompt is the union of its objects.

    Attributes:
        keyframe: the frame's index.
        boxes: float [K, 4], x1 y1 x2 y2 in pixels of the frames. A box that is not finite, or beyond `MAX_COORDINATE`,
            gives an empty mask.
    """

    keyframe: int
    boxes: np.ndarray

    @property
    def objects(self) -> tuple[ObjectPrompt, ...]:
        boxes = np.asarray(self.boxes, dtype=np.float64).reshape(-1, 4)
        return tuple((FramePrompt(self.keyframe, box),) for box in boxes)


@dataclass(frozen=True)
class MultiObjectPrompt:
    """Objects with boxes and points on one or several keyframes each; the mask is the union of the objects.

    Attributes:
        objects: what is given of each object. A keyframe whose coordinates are not finite is left out, and so is an
            object that has no keyframe.
    """

    objects: tuple[ObjectPrompt, ...]


@dataclass(frozen=True)
class TextPrompt:
    """All objects that a text, as `clean_expression` gives it, names: for a tracker that finds them itself."""

    text: str


Prompt: TypeAlias = BoxPrompt | MultiObjectPrompt | TextPrompt


def usable_objects(
    prompt: Prompt, total: int, factors: Sequence[float] | np.ndarray = (1.0, 1.0)
) -> list[ObjectPrompt]:
    """The objects of a prompt that can be tracked, in a grid scaled by `factors` (x, y), keyframes in order.

    Raises:
        ValueError: a keyframe is outside a clip of `total` frames, an object has two prompts on one frame, or the
            prompt is a text.
    """
    if isinstance(prompt, TextPrompt):
        raise ValueError("the tracker takes boxes, and was given a text")
    found = []
    scale = np.asarray(factors, dtype=np.float64)
    if isinstance(prompt, BoxPrompt):  # also where there is no box
        _check_frame(prompt.keyframe, total)
    for item in prompt.objects:
        for each in item:
            _check_frame(each.frame, total)
        frames = sorted((each.scaled(scale) for each in item), key=lambda each: each.frame)
        frames = [each for each in frames if each.is_usable]
        if len({each.frame for each in frames}) < len(frames):
            raise ValueError(f"an object has two prompts on one frame: {[each.frame for each in frames]}")
        if frames:
            found.append(tuple(frames))
    return found


def box_objects(objects: Sequence[ObjectPrompt]) -> dict[int, np.ndarray] | None:
    """Keyframe -> boxes float64 [K, 4] of objects with a box on one keyframe each; None where any has more."""
    boxes: dict[int, list[np.ndarray]] = {}
    for frame, *further in objects:
        if further or frame.box is None or len(frame.points):
            return None
        boxes.setdefault(frame.frame, []).append(frame.box)
    return {keyframe: np.stack(found) for keyframe, found in boxes.items()}


def keyframes_of(item: ObjectPrompt) -> tuple[int, ...]:
    return tuple(each.frame for each in item)


def group_by(items: Iterable, key: Callable) -> dict:
    """Key -> items, in the order in which the keys appear."""
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _check_frame(frame: int, total: int) -> None:
    if not 0 <= frame < total:
        raise ValueError(f"keyframe {frame} is outside a clip of {total} frames")
