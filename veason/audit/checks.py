"""What `veason audit` checks in one video. A finding names its kind, its frames and the expressions it affects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pycocotools import mask as coco

from veason import masks
from veason.data.base import UnknownObjectError, VideoBenchmark, VideoSample
from veason.errors import DataError
from veason.frames import FrameSizeError, check_frame
from veason.masks import Rle

# kind -> (what it means, whether an expression that it affects should be left out)
FINDING_KINDS = {
    "invalid_entry": ("an entry of the annotation cannot be used", True),
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
    "foreground": ("the masks of all objects of the video, which the robustness R needs, do not fit", True),
    "refused": ("training or evaluation refuses the expression for another reason", True),
    "unseen_object": ("one of several objects of the expression has no mask in any frame", False),
    "flicker": ("a mask is elsewhere for one frame", True),
}


@dataclass(frozen=True)
class AuditFinding:
    """One thing that is wrong.

    Attributes:
        kind: a key of KINDS.
        split, video: where.
        detail: one line for people.
        sample_ids: the expressions that it affects.
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


def check_annotation(benchmark: VideoBenchmark) -> list[AuditFinding]:
    """The entries of the annotation that cannot be used."""
    return [
        AuditFinding("invalid_entry", benchmark.split, entry.video, entry.reason, (entry.name,))
        for entry in benchmark.rejected
    ]


def check_video(benchmark: VideoBenchmark, samples: Sequence[VideoSample]) -> list[AuditFinding]:
    """Everything that is wrong with one video and its expressions; every frame is decoded.

    Args:
        samples: all of one video; absent targets may be among them.
    """
    found = _check_frames(benchmark, samples)
    if benchmark.has_ground_truth:
        found += _check_masks(benchmark, samples)
    known = set(excluded_samples(found))
    for sample in samples:
        if sample.sample_id in known:
            continue
        refuses = benchmark.training_problems if benchmark.has_ground_truth else benchmark.problems
        for kind, check in (("refused", refuses), ("foreground", benchmark.scoring_problems)):
            if problems := check(sample):
                found.append(_make_finding(benchmark, kind, sample, problems[0], (sample.sample_id,)))
                break
    return found


def excluded_samples(findings: Iterable[AuditFinding]) -> dict[str, list[str]]:
    """Sample id -> the kinds of findings for which it should be left out."""
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        if FINDING_KINDS[finding.kind][1]:
            for sample_id in finding.sample_ids:
                kinds = reasons.setdefault(sample_id, [])
                if finding.kind not in kinds:
                    kinds.append(finding.kind)
    return reasons


def _check_masks(benchmark: VideoBenchmark, samples: Sequence[VideoSample]) -> list[AuditFinding]:
    found: list[AuditFinding] = []
    tracks: dict[str, list[Rle | None] | None] = {}
    for sample in samples:
        for object_id in sample.object_ids:
            if object_id not in tracks:
                sample_ids = tuple(other.sample_id for other in samples if object_id in other.object_ids)
                findings, tracks[object_id] = _check_object(benchmark, sample, object_id, sample_ids)
                found += findings
    for sample in samples:
        if sample.type_id == 2:
            continue
        unseen = [
            name
            for name in sample.object_ids
            if (track := tracks[name]) is not None and not any(map(masks.area, track))
        ]
        if len(unseen) == len(sample.object_ids):
            kind, detail = "empty_target", f"no mask in any frame (ids {', '.join(unseen) or 'none'})"
        elif unseen:
            kind, detail = "unseen_object", f"no mask in any frame of ids {', '.join(unseen)}"
        else:
            continue
        found.append(_make_finding(benchmark, kind, sample, detail, (sample.sample_id,)))
    return found


def _check_frames(benchmark: VideoBenchmark, samples: Sequence[VideoSample]) -> list[AuditFinding]:
    sample, everyone = samples[0], tuple(sample.sample_id for sample in samples)
    listed = {frame + benchmark.suffix for frame in sample.frames}
    try:
        present = set(os.listdir(sample.frame_dir))
    except OSError:  # the folder is missing or none: all its frames are
        present = set()
    found = []
    missing = tuple(index for index, frame in enumerate(sample.frames) if frame + benchmark.suffix not in present)
    if missing:
        detail = f"{len(missing)} of {len(listed)} frames are missing, first {benchmark.frame_path(sample, missing[0])}"
        found.append(_make_finding(benchmark, "missing_frame", sample, detail, everyone))
    extra = sorted(present - listed)
    if extra and benchmark.lists_every_frame:
        detail = f"{len(extra)} files are not in the list of frames, first {sample.frame_dir / extra[0]}"
        found.append(_make_finding(benchmark, "extra_frame", sample, detail, everyone))
    bad: dict[str, list[tuple[int, str]]] = {"frame_size": [], "unreadable_frame": []}
    for index in sorted(set(range(len(sample.frames))) - set(missing)):
        try:
            check_frame(benchmark.frame_path(sample, index), (sample.height, sample.width))
        except DataError as error:
            kind = "frame_size" if isinstance(error, FrameSizeError) else "unreadable_frame"
            bad[kind].append((index, str(error)))
    for kind, wrong in bad.items():
        if wrong:
            frames, details = zip(*wrong)
            detail = details[0] if len(wrong) == 1 else f"{len(wrong)} of {len(listed)} frames, first: {details[0]}"
            found.append(_make_finding(benchmark, kind, sample, detail, everyone, frames=frames[:3]))
    return found


def _check_object(
    benchmark: VideoBenchmark, sample: VideoSample, object_id: str, sample_ids: tuple[str, ...]
) -> tuple[list[AuditFinding], list[Rle | None] | None]:
    """Findings about one object, and its masks where they can be used."""
    total = len(sample.frames)
    try:
        track = benchmark.annotated_masks(sample, object_id)
    except DataError as error:
        kind = "unknown_id" if isinstance(error, UnknownObjectError) else "unreadable_mask"
        return [_make_finding(benchmark, kind, sample, str(error), sample_ids, object_id)], None
    found = []
    if len(track) != total:
        kind = "short_list" if len(track) < total else "long_list"
        detail = f"id {object_id!r} has {len(track)} masks, the video has {total} frames"
        last = (min(len(track), total) - 1,)
        found.append(_make_finding(benchmark, kind, sample, detail, sample_ids, object_id, last))
        if len(track) < total:
            return found, None
    track = track[:total]
    return found + _check_track(benchmark, sample, object_id, track, sample_ids), track


def _check_track(
    benchmark: VideoBenchmark, sample: VideoSample, object_id: str, track: list[Rle | None], sample_ids: tuple[str, ...]
) -> list[AuditFinding]:
    shown = {t: rle for t, rle in enumerate(track) if rle is not None}
    size = sample.height, sample.width
    wrong = [t for t, rle in shown.items() if tuple(rle["size"]) != size]
    if wrong:
        first = _size_text(tuple(shown[wrong[0]]["size"]))
        detail = f"{len(wrong)} masks of id {object_id!r} are of another size, first {first} for {_size_text(size)}"
        return [_make_finding(benchmark, "mask_size", sample, detail, sample_ids, object_id, tuple(wrong[:3]))]

    damaged = {t: found[1] for t, rle in shown.items() if (found := masks.find_damage([rle]))}
    if damaged:  # comparing such masks may crash
        t = min(damaged)
        detail = (
            f"{len(damaged)} masks of id {object_id!r} are damaged, first in frame {sample.frames[t]}: {damaged[t]}"
        )
        return [_make_finding(benchmark, "unreadable_mask", sample, detail, sample_ids, object_id, tuple(damaged)[:3])]

    flicker = flicker_frames(track)
    if not flicker:
        return []
    first = sample.frames[flicker[0]]
    detail = f"the mask of id {object_id!r} is elsewhere for single frames: {len(flicker)}, first {first}"
    return [_make_finding(benchmark, "flicker", sample, detail, sample_ids, object_id, tuple(flicker[:3]))]


def flicker_frames(track: Sequence[Rle | None]) -> list[int]:
    """Frames whose mask touches neither neighbour's although these two agree: a mask of another moment or object."""
    neighbours = [mask_iou(one, other) for one, other in pairwise(track)]
    return [
        t
        for t in range(1, len(track) - 1)
        if masks.area(track[t])
        and max(neighbours[t - 1], neighbours[t]) < 0.1
        and mask_iou(track[t - 1], track[t + 1]) > 0.5
    ]


def mask_iou(one: Rle | None, other: Rle | None) -> float:
    """Intersection over union of two masks, without decoding; 0 when one is missing."""
    if one is None or other is None:
        return 0.0
    return float(coco.iou([one], [other], [0])[0, 0])


def _make_finding(
    benchmark: VideoBenchmark,
    kind: str,
    sample: VideoSample,
    detail: str,
    sample_ids: tuple[str, ...],
    object_id: str | None = None,
    frames: tuple[int, ...] = (),
) -> AuditFinding:
    return AuditFinding(kind, benchmark.split, sample.video, detail, sample_ids, object_id, frames)


def _size_text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
