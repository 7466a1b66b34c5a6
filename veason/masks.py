"""Masks as COCO run-length encodings (RLE): area, box and union without decoding; pixels only where they are needed.

An RLE here is always the compressed form, {"size": [H, W], "counts": bytes}; None is a frame without the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from os import PathLike
from typing import Any

import numpy as np
from pycocotools import mask as coco

from veason.errors import DataError
from veason.frames import MAX_PIXELS, open_picture

Rle = dict[str, Any]
Box = tuple[int, int, int, int]
CHECK_BATCH = 16  # masks that are checked together; their arrays stay in the processor's cache
MAX_RUN_CODES = 8  # a run of 2^39 pixels


def as_rle(value: Any) -> Rle | None:
    """A mask of an annotation file, in compressed form.

    Args:
        value: None, an RLE with compressed (text) or plain (list) counts, or a list of such RLEs, which are joined.

    Raises:
        DataError: anything else, or a damaged part of a list.
    """
    if value is None:
        return None
    if isinstance(value, list):
        if any(isinstance(part, list) for part in value):
            raise DataError("not a run-length mask: a list of lists")
        parts = [as_rle(part) for part in value]
        if found := find_damage(parts):
            raise DataError(found[1])
        return union(parts)
    try:
        height, width = value["size"]
        counts = value["counts"]
        if not all(type(side) is int and side > 0 for side in (height, width)) or height * width > MAX_PIXELS:
            raise ValueError("a size that no picture has")
        if isinstance(counts, list):
            if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != height * width:
                raise ValueError("runs that do not fill the picture")
            return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        if not isinstance(counts, (str, bytes)):
            raise TypeError("no counts")
        return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    except (TypeError, KeyError, ValueError) as error:
        shown = str(value)[:80] if isinstance(value, (str, int, float)) else type(value).__name__
        raise DataError(f"not a run-length mask: {shown} ({type(error).__name__}: {error})") from error


def check(rle: Rle) -> None:
    """Raise DataError when the runs do not fill the picture exactly (`find_damage`)."""
    if found := find_damage([rle]):
        raise DataError(found[1])


def find_damage(track: Sequence[Rle | None]) -> tuple[int, str] | None:
    """The position of the first mask whose runs do not fill its picture exactly, and the reason; None if there is none.

    pycocotools leaves pixels without a run as they were in memory; when it merges or compares such a mask it may crash
    or never return.
    """
    for start in range(0, len(track), CHECK_BATCH):
        if found := _find_damage(track[start : start + CHECK_BATCH]):
            return start + found[0], found[1]
    return None


def _find_damage(track: Sequence[Rle | None]) -> tuple[int, str] | None:
    shown = [(number, rle) for number, rle in enumerate(track) if rle is not None]
    for number, rle in shown:
        counts = rle["counts"]
        if not counts or (counts[-1] - 48) & 32:
            return number, _refusal(rle, "runs cut short" if counts else "no runs")
    if not shown:
        return None
    runs, bounds, longest = _read_runs([rle["counts"] for _, rle in shown])
    for start, stop in pairwise(bounds):
        for first in (1, 2):  # from the fourth on, each holds the difference to the last but one
            chain = runs[start + first : stop : 2]
            np.cumsum(chain, out=chain)
    filled, least = np.add.reduceat(runs, bounds[:-1]), np.minimum.reduceat(runs, bounds[:-1])
    pixels = np.array([rle["size"][0] * rle["size"][1] for _, rle in shown])
    wrong = np.flatnonzero((filled != pixels) | (least < 0) | (longest > MAX_RUN_CODES))
    if not len(wrong):
        return None
    first = wrong[0]
    number, rle = shown[first]
    reason = (
        f"runs of {filled[first]} pixels for {pixels[first]}"
        if longest[first] <= MAX_RUN_CODES
        else f"a run of {longest[first]} codes"
    )
    return number, _refusal(rle, reason)


def _read_runs(counts: Sequence[bytes]) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Decode the runs of several masks, without the differences that COCO stores them as.

    A code is a character: 5 bits of a run, low bits first, and whether more follow; the last one's highest bit is the
    sign.

    Returns:
        The runs of all masks, int64; where each mask's begin and end among them; the codes of each mask's longest run.
    """
    codes = np.frombuffer(b"".join(counts), np.uint8) - np.uint8(48)
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    bits = (codes & 31).astype(np.int64)
    runs = bits[starts]
    for place in range(1, min(int(lengths.max()), MAX_RUN_CODES)):
        longer = np.flatnonzero(lengths > place)
        runs[longer] += bits[starts[longer] + place] << 5 * place
    runs -= (bits[ends] >> 4) << 5 * np.minimum(lengths, MAX_RUN_CODES)
    bounds = np.concatenate(([0], np.searchsorted(ends, np.cumsum([len(each) for each in counts]) - 1) + 1)).tolist()
    return runs, bounds, np.maximum.reduceat(lengths, bounds[:-1])


def _refusal(rle: Rle, reason: str) -> str:
    return f"run-length mask of size {rle['size']} cannot be decoded ({reason})"


def decode(rle: Rle) -> np.ndarray:
    """uint8 [H, W], 0 or 1. Raises DataError when the mask is damaged."""
    check(rle)
    try:
        return coco.decode(rle)
    except ValueError as error:
        raise DataError(_refusal(rle, str(error))) from error


def encode(mask: np.ndarray) -> Rle:
    """The RLE of a mask [H, W]; every value but 0 is the object."""
    return coco.encode(np.asfortranarray(mask != 0, dtype=np.uint8))


def as_json(rle: Rle | None) -> dict[str, Any] | None:
    """An RLE as it stands in a JSON file, with its counts as text."""
    return None if rle is None else {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def area(rle: Rle | None) -> int:
    """Pixels of the object."""
    return 0 if rle is None else int(coco.area(rle))


def box(rle: Rle | None) -> Box | None:
    """The object's extreme pixels (left, top, right, bottom), inclusive; None when it has no pixel."""
    if area(rle) == 0:
        return None
    left, top, width, height = (int(side) for side in coco.toBbox(rle))
    return left, top, left + width - 1, top + height - 1


def union(rles: Iterable[Rle | None]) -> Rle | None:
    """The union of masks, none of which may be damaged (`find_damage`); None when there is none."""
    present = [rle for rle in rles if rle is not None]
    if len(present) < 2:
        return present[0] if present else None
    if any(list(rle["size"]) != list(present[0]["size"]) for rle in present):
        raise DataError(f"masks of one frame differ in size: {sorted({tuple(rle['size']) for rle in present})}")
    return coco.merge(present)


def scale_box(pixels: Box | None, height: int, width: int, size: int) -> list[float]:
    """A box of a height x width frame in the size x size frame, shifted by half a pixel; [0, 0, 0, 0] for None."""
    if pixels is None:
        return [0, 0, 0, 0]
    left, top, right, bottom = pixels
    x, y = size / width, size / height
    return [left * x + 0.5, top * y + 0.5, right * x + 0.5, bottom * y + 0.5]


def answer_box(
    pixels: Box | None, height: int, width: int, size: int, coordinate_range: int | None = None
) -> list[float]:
    """`scale_box` as an answer gives it: in pixels of the size x size frame, or from 0 to `coordinate_range` (1000 for
    Qwen3-VL).
    """
    box = scale_box(pixels, height, width, size)
    return box if coordinate_range is None else [value * coordinate_range / size for value in box]


def resize_nearest(masks: np.ndarray, size: int) -> np.ndarray:
    """Masks [..., H, W] at [..., size, size], as torch.nn.functional.interpolate(mode="nearest") samples them."""
    height, width = masks.shape[-2:]
    rows, columns = (
        np.floor(np.arange(size, dtype=np.float32) * np.float32(side / size)).astype(np.intp)
        for side in (height, width)
    )
    transposed = masks.swapaxes(-2, -1)  # a decoded mask lies column by column, so whole columns are taken first
    sampled = transposed[..., np.minimum(columns, width - 1), :][..., np.minimum(rows, height - 1)]
    return sampled.swapaxes(-2, -1)


def read_mask(path: str | PathLike[str], numbered: bool = True, what: str = "mask") -> np.ndarray:
    """The values of a PNG mask, uint8 [H, W]: 0 and 255, or object numbers (also of a palette picture).

    Args:
        numbered: the values are object numbers, which colours do not tell; otherwise any colour but black is 255.
        what: what the file is; begins a message.

    Raises:
        DataError: the file cannot be read (`open_picture`), or has colours for numbers.
    """
    with open_picture(path, what) as picture:
        if picture.mode in ("L", "P"):
            return np.asarray(picture)
        values = np.asarray(picture.convert("RGB"))
    if not (values == values[..., :1]).all():
        if numbered:
            raise DataError(f"{what} is a picture in colours, not of object numbers: {path}")
        return np.where(values.any(axis=-1), np.uint8(255), np.uint8(0))
    return values[..., 0]
