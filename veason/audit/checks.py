"""What `veason.audit` looks for in one video. Every finding names its kind, its frames and the expressions that it
spoils.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from veason import masks
from veason.data.base import Benchmark, VideoSample
from veason.data.layouts import MaskDictBenchmark
from veason.errors import DataError
from veason.frames import frame_size, open_frame
from veason.masks import Rle
from veason.metrics.alignment import leaps, shrink, slip

ReadGrey = Callable[[int], np.ndarray]

# kind -> (what it means, whether an expression that it touches should be left out)
KINDS = {
    "missing_frame": ("a frame of the list is not in the folder", True),
    "extra_frame": ("a file of the folder is not in the list", False),
    "frame_size": ("frames are not of the size that the annotation says", True),
    "unreadable_frame": ("a frame cannot be read", True),
    "unknown_id": ("an object of the expression has no masks", True),
    "short_list": ("fewer masks than frames", True),
    "long_list": ("more masks than frames: which frames they belong to is open", False),
    "mask_size": ("masks are not of the size of the frames", True),
    "unreadable_mask": ("masks cannot be read", True),
    "empty_target": ("no object of the expression has a mask in any frame", True),
    "leap": ("a mask leaps away for one frame and back", True),
    "slip": ("masks fit the frame before or after their own", True),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: a key of KINDS.
        split, video: where.
        detail: one line for people.
        sample_ids: the expressions that it touches.
        object_id: the object, where it is about one.
        frames: positions of the frames to look at, the first few of them.
    """

    kind: str
    split: str
    video: str
    detail: str
    sample_ids: tuple[str, ...]
    object_id: str | None = None
    frames: tuple[int, ...] = field(default=())


def check_video(benchmark: Benchmark, samples: Sequence[VideoSample], pixels: bool = True) -> list[Finding]:
    """Everything that is wrong with one video and its expressions.

    Args:
        samples: all of one video; absent targets may be among them.
        pixels: also compare masks with the pictures, which reads up to about 50 frames an object.
    """
    found, whole = _check_frames(benchmark, samples)
    if not benchmark.has_truth:
        return found

    @cache
    def read_grey(t: int) -> np.ndarray:
        return shrink(np.asarray(open_frame(benchmark.frame_path(samples[0], t)).convert("L")))

    tracks: dict[str, list[Rle | None] | None] = {}
    for sample in samples:
        for object_id in sample.object_ids:
            if object_id not in tracks:
                users = tuple(other.sample_id for other in samples if object_id in other.object_ids)
                findings, tracks[object_id] = _check_object(
                    benchmark, sample, object_id, users, read_grey if pixels and whole else None
                )
                found += findings
    for sample in samples:
        known = [tracks[object_id] for object_id in sample.object_ids]
        if sample.type_id != 2 and not any(track is None or any(map(masks.area, track)) for track in known):
            ids = ", ".join(sample.object_ids) or "none"
            found.append(
                _finding(benchmark, "empty_target", sample, f"no mask in any frame (ids {ids})", (sample.sample_id,))
            )
    return found


def _check_frames(benchmark: Benchmark, samples: Sequence[VideoSample]) -> tuple[list[Finding], bool]:
    """Findings about the frames, and whether the pictures can be compared with masks."""
    sample, everyone = samples[0], tuple(sample.sample_id for sample in samples)
    listed = {frame + benchmark.suffix for frame in sample.frames}
    present = set(os.listdir(sample.frame_dir)) if sample.frame_dir.is_dir() else set()
    found = []
    missing = tuple(index for index, frame in enumerate(sample.frames) if frame + benchmark.suffix not in present)
    if missing:
        detail = f"{len(missing)} of {len(listed)} frames are missing, first {benchmark.frame_path(sample, missing[0])}"
        found.append(_finding(benchmark, "missing_frame", sample, detail, everyone))
    extra = sorted(present - listed)
    if extra and benchmark.lists_every_frame:
        detail = f"{len(extra)} files are not in the list of frames, first {sample.frame_dir / extra[0]}"
        found.append(_finding(benchmark, "extra_frame", sample, detail, everyone))
    for index in sorted({0, len(sample.frames) - 1} - set(missing)):
        path = benchmark.frame_path(sample, index)
        try:
            size = frame_size(path)
        except DataError as error:
            found.append(_finding(benchmark, "unreadable_frame", sample, str(error), everyone))
            continue
        if size != (sample.height, sample.width):
            detail = f"{path} is {_by(size)}, the annotation says {_by((sample.height, sample.width))}"
            found.append(_finding(benchmark, "frame_size", sample, detail, everyone, frames=(index,)))
            break
    return found, not any(finding.kind != "extra_frame" for finding in found)


def _check_object(
    benchmark: Benchmark, sample: VideoSample, object_id: str, users: tuple[str, ...], read_grey: ReadGrey | None
) -> tuple[list[Finding], list[Rle | None] | None]:
    """Findings about one object, and its masks where they can be used."""
    total, found = len(sample.frames), []
    if isinstance(benchmark, MaskDictBenchmark):
        if object_id not in benchmark.index:
            detail = f"{benchmark.index.source} has no masks for id {object_id!r}"
            return [_finding(benchmark, "unknown_id", sample, detail, users, object_id)], None
        track = benchmark.index[object_id]
        if len(track) != total:
            kind = "short_list" if len(track) < total else "long_list"
            detail = f"id {object_id!r} has {len(track)} masks, the video has {total} frames"
            found.append(_finding(benchmark, kind, sample, detail, users, object_id, (min(len(track), total) - 1,)))
            if len(track) < total:
                return found, None
        track = track[:total]
    else:
        try:
            track = benchmark.tracks(sample._replace(object_ids=(object_id,)), range(total))[0]
        except DataError as error:
            return [_finding(benchmark, "unreadable_mask", sample, str(error), users, object_id)], None
    return found + _check_track(benchmark, sample, object_id, track, users, read_grey), track


def _check_track(
    benchmark: Benchmark,
    sample: VideoSample,
    object_id: str,
    track: list[Rle | None],
    users: tuple[str, ...],
    read_grey: ReadGrey | None,
) -> list[Finding]:
    wrong = [
        t for t, rle in enumerate(track) if rle is not None and tuple(rle["size"]) != (sample.height, sample.width)
    ]
    if wrong:
        rle = track[wrong[0]]
        size = _by(tuple(rle["size"])) if rle else ""
        detail = (
            f"{len(wrong)} masks of id {object_id!r} are of another size, first {size} for "
            f"{_by((sample.height, sample.width))}"
        )
        return [_finding(benchmark, "mask_size", sample, detail, users, object_id, tuple(wrong[:3]))]

    damaged = {t: reason for t, rle in enumerate(track) if rle is not None and (reason := _damage(rle))}
    if damaged:  # comparing such masks may crash
        first = min(damaged)
        detail = (
            f"{len(damaged)} masks of id {object_id!r} are damaged, first in frame "
            f"{sample.frames[first]}: {damaged[first]}"
        )
        return [_finding(benchmark, "unreadable_mask", sample, detail, users, object_id, tuple(damaged)[:3])]

    found = []
    away = leaps(track)
    if away:
        detail = (
            f"the mask of id {object_id!r} leaps away and back in {len(away)} frames, first {sample.frames[away[0]]}"
        )
        found.append(_finding(benchmark, "leap", sample, detail, users, object_id, tuple(away[:3])))
    try:
        slipped = slip(track, read_grey) if read_grey else None
    except DataError as error:
        return [*found, _finding(benchmark, "unreadable_frame", sample, str(error), users, object_id)]
    if slipped:
        shift, first = slipped
        side = "before" if shift > 0 else "after"
        detail = f"the masks of id {object_id!r} fit the frame {side} their own, from about {sample.frames[first]} on"
        found.append(_finding(benchmark, "slip", sample, detail, users, object_id, (first,)))
    return found


def _damage(rle: Rle) -> str | None:
    try:
        masks.check(rle)
    except DataError as error:
        return str(error)
    return None


def _finding(
    benchmark: Benchmark,
    kind: str,
    sample: VideoSample,
    detail: str,
    users: tuple[str, ...],
    object_id: str | None = None,
    frames: tuple[int, ...] = (),
) -> Finding:
    return Finding(kind, benchmark.split, sample.video, detail, users, object_id, frames)


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
