"""JSON lines, one expression each, with the video and the masks or boxes of what it refers to.

    {"video": "a.mp4", "expression": "the dog", "masks": {"0": RLE, "25": null, "50": [[x1, y1, x2, y2, ...]]}}
    {"video": "a.mp4", "expression": "both dogs", "objects": [{"id": "1", "masks": {...}}, {"id": "2", "masks": {...}}]}
    {"video": "a.mp4", "expression": "the dogs", "objects": ["1", "2"]}             given by earlier or later lines
    {"video": "b", "expression": "who falls", "type": "reasoning", "boxes": {"00012": [x1, y1, x2, y2]}}
    {"video": "b", "expression": "a cat", "type": "absent"}

A key of masks or boxes is a frame: a picture's name or a number; a list has one entry for every frame of the video.
A mask is a COCO RLE, a polygon or a list of them, the path of a PNG, or null where the object is absent. A frame
without an entry has no annotation. A line without an expression only gives objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from veason import masks
from veason.errors import DataError
from veason.importing.annotations import (
    AnnotatedObject,
    AnnotatedVideo,
    Expression,
    SourceFiles,
    read_box,
    read_mask_value,
)
from veason.importing.captions import make_expression
from veason.importing.source_clips import SourceClip, find_clips
from veason.registry import suggest
from veason.video.natural_order import natural_key

KEYS = ("video", "expression", "type", "masks", "boxes", "object", "objects")


@dataclass
class _Video:
    clip: SourceClip
    expressions: list[Expression] = field(default_factory=list)
    objects: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)  # id -> (masks or boxes, where)
    mentioned: dict[str, str] = field(default_factory=dict)  # id -> where


def read_jsonl(source: SourceFiles) -> list[AnnotatedVideo]:
    """The videos that the lines name, with their expressions; paths are relative to the file's folder.

    Raises:
        DataError: names the line.
    """
    folder = source.videos or source.path.parent
    clips = find_clips(folder, source.first_frame, (), source.kept_fps)
    by_path = {clip.path.relative_to(folder).as_posix(): clip for clip in clips.values()}
    found: dict[str, _Video] = {}
    for number, line in enumerate(_lines(source.path), start=1):
        if line.strip():
            _read_line(line, f"{source.path}, line {number}", {**by_path, **clips}, found)
    if not found:
        raise DataError(f"{source.path} holds no line")
    result = []
    for name in sorted(found, key=natural_key):
        video = found[name]
        for object_id, where in video.mentioned.items():
            if object_id not in video.objects:
                raise DataError(f"{where}: no line gives the masks of object {object_id!r} of video {name!r}")
        objects = partial(_objects, source.path.parent, video)
        given = {object_id: entry for object_id, (entry, _) in video.objects.items()}
        result.append(AnnotatedVideo(video.clip, video.expressions, objects, given))
    return result


def _lines(source: Path) -> list[str]:
    try:
        return source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 ({error.reason})") from error


def _read_line(line: str, where: str, clips: Mapping[str, SourceClip], found: dict[str, _Video]) -> None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise DataError(f"{where} is no JSON object")
    if unknown := sorted(set(entry) - set(KEYS)):
        raise DataError(f"{where}: {unknown[0]} is unknown{suggest(unknown[0], KEYS)}")
    path = str(entry.get("video", "")).strip("/").removeprefix("./")
    if path not in clips:
        raise DataError(f"{where}: there is no video {path!r} (the first is {next(iter(clips))!r})")
    video = found.setdefault(clips[path].name, _Video(clips[path]))
    ids = _read_objects(entry, where, video)
    if "expression" in entry:
        kind = entry.get("type")
        video.expressions.append(make_expression(entry["expression"], ids, kind, where))


def _read_objects(entry: dict[str, Any], where: str, video: _Video) -> list[str]:
    """The ids of the objects of a line; what it says of them goes to `video`."""
    listed = entry.get("objects")
    if listed is None:
        own = {key: entry[key] for key in ("masks", "boxes") if key in entry}
        if not own and "object" not in entry:
            return []
        listed = [{"id": entry.get("object"), **own}] if own else [entry["object"]]
    elif not isinstance(listed, list) or "masks" in entry or "boxes" in entry:
        raise DataError(
            f"{where}: objects is a list of ids or of {{id, masks or boxes}}, without masks or boxes beside it"
        )
    ids = []
    for each in listed:
        if not isinstance(each, dict):
            ids.append(str(each))
            video.mentioned.setdefault(ids[-1], where)
            continue
        if ("masks" in each) == ("boxes" in each):
            raise DataError(f"{where}: an object has either masks or boxes")
        object_id = str(each["id"]) if each.get("id") is not None else _free_id(each, video)
        known = video.objects.get(object_id)
        if known is not None and known[0] != _given(each):
            raise DataError(f"{where}: object {object_id!r} has other masks or boxes than in {known[1]}")
        video.objects[object_id] = (_given(each), where)
        ids.append(object_id)
    return ids


def _given(each: dict[str, Any]) -> dict[str, Any]:
    return {key: each[key] for key in ("masks", "boxes") if key in each}


def _free_id(each: dict[str, Any], video: _Video) -> str:
    """Of an object without an id: that of one with the same masks, or the next number."""
    same = (object_id for object_id, (given, _) in video.objects.items() if given == _given(each))
    return next(same, None) or str(next(n for n in range(1, 1 << 30) if str(n) not in video.objects))


def _objects(folder: Path, video: _Video) -> dict[str, AnnotatedObject]:
    found = {}
    for object_id, (given, where) in video.objects.items():
        inside = f"{where}, object {object_id}"
        key = "masks" if "masks" in given else "boxes"
        entries = _by_position(given[key], video.clip, inside)
        if key == "boxes":
            boxes = {position: read_box(value, inside) for position, value in entries.items()}
            found[object_id] = AnnotatedObject(frozenset(entries), boxes=boxes)
            if not any(boxes.values()):
                raise DataError(f"{inside}: no box in any frame")
            continue
        found[object_id] = AnnotatedObject(frozenset(entries), partial(_mask, folder, entries, inside))
    return found


def _mask(
    folder: Path, entries: Mapping[int, Any], where: str, position: int, height: int, width: int
) -> masks.Rle | None:
    return read_mask_value(entries[position], height, width, f"{where}, frame {position}", folder)


def _by_position(entries: Any, clip: SourceClip, where: str) -> dict[int, Any]:
    if isinstance(entries, list):
        if len(entries) != clip.total:
            raise DataError(f"{where}: {len(entries)} entries for the {clip.total} frames of {clip.path}")
        return dict(enumerate(entries))
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{where}: masks and boxes are {{frame: value}}, or a list with an entry a frame")
    found = {}
    for name, value in entries.items():
        position = clip.frame(name)
        if position is None or position in found:
            odd = f"has no frame {name!r}" if position is None else f"has frame {name!r} twice"
            raise DataError(f"{where}: video {clip.path} {odd}")
        found[position] = value
    return found
