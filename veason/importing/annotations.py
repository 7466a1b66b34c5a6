"""What the formats have in common: videos with their objects, where each of them is, and expressions about them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools import mask as coco

from veason import masks
from veason.errors import DataError
from veason.importing.picture_files import read_object_numbers
from veason.importing.source_clips import SourceClip

EXPRESSION_TYPES = {"referring": 0, "reasoning": 1, "absent": 2}
BoxXYXY = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the video


@dataclass(frozen=True)
class SourceFiles:
    """Where a source has its files, and how its annotation numbers the frames of video files.

    Attributes:
        path: the folder that holds the videos and the annotation, or the file of JSON lines.
        videos: the folder of the videos, where it is another one.
        annotations: the COCO file or the folder of PNGs, where it is not found in `path`.
        first_frame, kept_fps: see `SourceClip`.
    """

    path: Path
    videos: Path | None = None
    annotations: Path | None = None
    first_frame: int = 0
    kept_fps: float | None = None


class Expression(NamedTuple):
    """An expression about objects of a video; `type_id` as in ReVOS, 2 with no objects for an absent target."""

    text: str
    objects: tuple[str, ...]
    type_id: int


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of a video.

    Attributes:
        annotated: positions of the frames where its annotation says where it is, or that it is absent.
        mask: (position, height, width) -> its mask, None where it is absent; for annotated frames.
        category: of the annotation, where it has one.
        boxes: position -> its box, None where it is absent; given instead of masks.
    """

    annotated: frozenset[int]
    mask: Callable[[int, int, int], masks.Rle | None] | None = None
    category: str | None = None
    boxes: Mapping[int, BoxXYXY | None] = field(default_factory=dict)


@dataclass
class AnnotatedVideo:
    """One video of a source.

    Attributes:
        expressions: may be none.
        read_objects: gives object id -> object; only called for a video that has not been imported yet.
        annotation: what changes when the masks or boxes do, as JSON.
        sizes: where the annotation says for what frame size it was made -> its height and width there.
    """

    clip: SourceClip
    expressions: list[Expression]
    read_objects: Callable[[], dict[str, AnnotatedObject]]
    annotation: Any
    sizes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.clip.name

    @cached_property
    def objects(self) -> dict[str, AnnotatedObject]:
        """Object id -> object. Raises DataError, which names the video, when there is none."""
        found = self.read_objects()
        if not found:
            raise DataError(f"video {self.name}: no object is annotated")
        return found

    def check_frame_size(self, height: int, width: int) -> None:
        """Raises DataError where the annotation was made for frames of another size."""
        for where, size in self.sizes.items():
            if size != (height, width):
                raise DataError(
                    f"{where}: annotated at {size[0]:g}x{size[1]:g} pixels, video {self.name} has frames of "
                    f"{height}x{width} (height x width): export the annotation at the size of the frames, or give the "
                    "video that was annotated"
                )

    def state(self, options: Mapping[str, Any]) -> str:
        """Changes when the video, its annotation or an option of the import does."""
        parts = [self.clip.state(), self.annotation, dict(options), *([self.sizes] if self.sizes else [])]
        content = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()


def read_type(value: Any, where: str) -> int:
    """The type_id of referring, reasoning, absent, or of its number; 0 for None and ""."""
    if value is None or value == "":
        return 0
    if value in EXPRESSION_TYPES:
        return EXPRESSION_TYPES[value]
    if str(value) in ("0", "1", "2"):
        return int(value)
    raise DataError(f"{where}: type {value!r} is none of {', '.join(EXPRESSION_TYPES)} (0, 1, 2)")


def read_box(value: Any, where: str) -> BoxXYXY | None:
    """A box [x1, y1, x2, y2]; None for null.

    Raises:
        DataError: four numbers are needed, finite, with x1 < x2 and y1 < y2.
    """
    if value is None:
        return None
    try:
        x1, y1, x2, y2 = (float(side) for side in value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: box {str(value)[:60]} is not [x1, y1, x2, y2]") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 >= x2 or y1 >= y2:
        raise DataError(f"{where}: box {value} needs x1 < x2 and y1 < y2 (corners, not width and height)")
    return x1, y1, x2, y2


def read_mask_value(value: Any, height: int, width: int, where: str, folder: Path) -> masks.Rle | None:
    """A mask of an annotation file as an RLE of a frame's size; None where it has no pixel.

    Args:
        value: null, a COCO RLE (compressed or not), a polygon [x1, y1, x2, y2, ...] or a list of these, or the path of
            a PNG, whose pixels that are not 0 are the object.
        folder: of relative paths.

    Raises:
        DataError: none of these, damaged, or of another size than the frame; begins with `where`.
    """
    if value is None or value == []:
        return None
    try:
        rle = _read_any(value, height, width, folder)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if tuple(rle["size"]) != (height, width):
        size = "x".join(map(str, rle["size"]))
        raise DataError(f"{where}: mask of {size} pixels, frame of {height}x{width} (height x width)")
    return rle if masks.area(rle) else None


def _read_any(value: Any, height: int, width: int, folder: Path) -> masks.Rle:
    if isinstance(value, str):
        return masks.encode(read_object_numbers(folder / value) != 0)
    if isinstance(value, list):
        return _read_polygons(value, height, width)
    rle = masks.as_rle(value)
    assert rle is not None
    masks.check(rle)
    return rle


def _read_polygons(value: list[Any], height: int, width: int) -> masks.Rle:
    polygons = value if isinstance(value[0], list) else [value]
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(
            isinstance(side, (int, float)) and math.isfinite(side) for side in polygon
        )
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise DataError(f"polygon {str(polygon)[:60]} is not [x1, y1, x2, y2, x3, y3, ...]")
    if all(_is_outside(polygon, height, width) for polygon in polygons):
        raise DataError(
            f"polygon {str(polygons[0])[:60]} lies outside the frame of {height}x{width} (height x width): coordinates "
            "are pixels of the frame, and an absent object has no mask"
        )
    return coco.merge(coco.frPyObjects([[float(side) for side in polygon] for polygon in polygons], height, width))


def _is_outside(polygon: list[float], height: int, width: int) -> bool:
    xs, ys = polygon[::2], polygon[1::2]
    return max(xs) <= 0 or min(xs) >= width or max(ys) <= 0 or min(ys) >= height
