"""PNG annotations in the manner of DAVIS and YouTube-VOS: Annotations/<video>/<frame>.png, whose values are objects.

The PNG of a frame has its name; beside a video file it holds the frame's number. A frame without a PNG has no
annotation. Where the PNGs of a video hold 0 and 255 alone, that is object 1; beside other values 255 is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from veason import masks
from veason.errors import DataError
from veason.importing.annotations import AnnotatedObject, AnnotatedVideo, SourceFiles
from veason.importing.picture_files import read_object_numbers
from veason.importing.source_clips import VIDEO_FOLDERS, SourceClip, find_clips, natural_file_key
from veason.video.natural_order import natural_key

VOID = 255
MASKS = ("Annotations", "masks")


def matches(source: Path) -> bool:
    """Whether a folder is laid out like this."""
    return any((source / name).is_dir() for name in MASKS)


def read_png(source: SourceFiles) -> list[AnnotatedVideo]:
    """The videos that have a folder of PNGs, without expressions.

    By default the PNGs are in Annotations or masks, the videos in JPEGImages, videos, frames or the source itself.

    Raises:
        DataError: a folder is missing, or PNGs have no video.
    """
    root = source.path
    annotated = _only_resolution(source.annotations or _first_folder(root, MASKS) or root / MASKS[0])
    if not annotated.is_dir():
        raise DataError(f"folder of PNG masks is missing: {annotated}")
    folder = _only_resolution(source.videos or _first_folder(root, VIDEO_FOLDERS) or root)
    clips = find_clips(folder, source.first_frame, [annotated], source.kept_fps)
    found = []
    for name in sorted(_mask_folders(annotated), key=natural_key):
        if name not in clips:
            raise DataError(
                f"{annotated / name} holds masks, and there is no video {name!r} (there is {next(iter(clips))!r})"
            )
        pngs = _frames_of(clips[name], annotated / name)
        state = [[path.name, (info := path.stat()).st_size, info.st_mtime_ns] for path in pngs.values()]
        found.append(AnnotatedVideo(clips[name], [], partial(_objects, pngs), state))
    if not found:
        raise DataError(f"no folder of PNGs in {annotated}: Annotations/<video>/<frame>.png{_jpeg_hint(annotated)}")
    return found


def _first_folder(source: Path, names: Sequence[str]) -> Path | None:
    return next((source / name for name in names if (source / name).is_dir()), None)


def _only_resolution(folder: Path) -> Path:
    """JPEGImages/480p for DAVIS's JPEGImages, where that is all that it holds."""
    if not folder.is_dir():
        return folder
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if len(inside) == 1 and inside[0].is_dir():
        nested = [path for path in inside[0].iterdir() if not path.name.startswith(".")]
        if nested and all(path.is_dir() for path in nested):
            return inside[0]
    return folder


def _mask_folders(annotated: Path) -> set[str]:
    pngs = (path for path in annotated.rglob("*") if path.suffix.lower() == ".png" and not path.name.startswith("."))
    return {path.parent.relative_to(annotated).as_posix() for path in pngs}


def _jpeg_hint(annotated: Path) -> str:
    """Says that masks are JPEGs, where they are."""
    jpegs = (path for path in annotated.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    jpeg = next(jpegs, None)
    if jpeg is None:
        return ""
    return f" ({jpeg} is a JPEG, which changes the object numbers of pixels: write masks as PNG)"


def _frames_of(clip: SourceClip, folder: Path) -> dict[int, Path]:
    """Position -> PNG."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir(), key=natural_file_key):
        if path.suffix.lower() != ".png" or path.name.startswith("."):
            continue
        position = clip.frame(path.stem)
        if position is None:
            numbers = "" if clip.pictures else f" ({clip.numbers})"
            raise DataError(f"{path}: video {clip.path} has no such frame{numbers}")
        if position in found:
            raise DataError(f"{path} and {found[position].name} are of one frame")
        found[position] = path
    return found


def _objects(pngs: Mapping[int, Path]) -> dict[str, AnnotatedObject]:
    """The objects of a video; reads every PNG."""
    numbers: set[int] = set()
    for path in pngs.values():
        numbers.update(np.unique(read_object_numbers(path)).tolist())
    numbers.discard(0)
    alone = numbers == {VOID}
    if not alone:
        numbers.discard(VOID)
    read = lru_cache(maxsize=1)(lambda position: read_object_numbers(pngs[position]))  # all objects of a frame in a row

    def mask(value: int, position: int, height: int, width: int) -> masks.Rle | None:
        found = read(position)
        if found.shape != (height, width):
            size = "x".join(map(str, found.shape))
            raise DataError(f"{pngs[position]}: mask of {size} pixels, frame of {height}x{width} (height x width)")
        rle = masks.encode(found == value)
        return rle if masks.area(rle) else None

    annotated = frozenset(pngs)
    return {"1" if alone else str(value): AnnotatedObject(annotated, partial(mask, value)) for value in sorted(numbers)}
