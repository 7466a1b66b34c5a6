"""From imported videos to the ReVOS form: expressions by split, mask_dict.json and mask_dict_foreground.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from veason import masks
from veason.data.training_split import validation_videos
from veason.errors import DataError
from veason.files import atomic_path, write_json
from veason.importing.annotations import Expression
from veason.importing.video_import import ImportedVideo, read_masks

SPLITS = ("train", "valid")


def collect_expressions(video: ImportedVideo, given: Sequence[Expression], by_category: bool) -> list[Expression]:
    """The expressions of a video; with `by_category` also one for all objects of each category, which is its name.

    Raises:
        DataError: an expression names an object that has no masks.
    """
    known = video["objects"]
    for expression in given:
        if missing := [name for name in expression.objects if name not in known]:
            objects = f"object{'s' if len(known) > 1 else ''} {', '.join(known)}"
            white = " (a mask of 0 and 255 is object 1)" if missing[0] == "255" and list(known) == ["1"] else ""
            raise DataError(
                f"video {video['video']}: {expression.text!r} is about object {missing[0]}; "
                f"the masks have the {objects}{white}"
            )
    found = list(given)
    if by_category:
        members: dict[str, list[str]] = {}
        for name, each in known.items():
            if each["category"]:
                members.setdefault(each["category"], []).append(name)
        found += [Expression(category, tuple(names), 0) for category, names in members.items()]
    return list(dict.fromkeys(found))


def write_annotation_files(
    output: Path,
    imported: Mapping[str, ImportedVideo],
    expressions: Mapping[str, Sequence[Expression]],
    val_ratio: float,
    seed: int,
) -> dict[str, list[str]]:
    """Write the annotation files. Returns the videos of each split; a split without a video has no file."""
    validation = validation_videos(imported, val_ratio, seed)
    splits = {split: [name for name in imported if (name in validation) == (split == "valid")] for split in SPLITS}
    _write_members(output / "mask_dict.json", _tracks(output, imported))
    foreground = ((name, _foreground(read_masks(output, name))) for name in imported)
    _write_members(output / "mask_dict_foreground.json", foreground)
    for split, names in splits.items():
        path = output / f"meta_expressions_{split}_.json"
        if not names:
            path.unlink(missing_ok=True)
            continue
        videos = {name: _meta(number, imported[name], expressions[name]) for number, name in enumerate(names)}
        write_json(path, {"videos": videos}, ensure_ascii=False)
    return splits


def _meta(number: int, video: ImportedVideo, expressions: Sequence[Expression]) -> dict[str, Any]:
    objects = video["objects"]
    return {
        "vid_id": number,
        "height": video["height"],
        "width": video["width"],
        "frames": [f"{index:05d}" for index in range(video["frames"])],
        "source": video["source"],
        "source_frames": video["source_frames"],
        "objects": objects,
        "expressions": {
            str(number): {
                "exp": expression.text,
                "obj_id": list(expression.objects),
                "anno_id": [objects[name]["anno_id"] for name in expression.objects],
                "type_id": expression.type_id,
            }
            for number, expression in enumerate(expressions)
        },
    }


def _tracks(output: Path, imported: Mapping[str, ImportedVideo]) -> Iterable[tuple[str, Any]]:
    for name, video in imported.items():
        for object_id, track in read_masks(output, name).items():
            yield video["objects"][object_id]["anno_id"], track


def _foreground(tracks: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The union of all objects of a video."""
    return {"masks_rle": [masks.as_json(masks.union(map(masks.as_rle, frame))) for frame in zip(*tracks.values())]}


def _write_members(path: Path, members: Iterable[tuple[str, Any]]) -> None:
    """A JSON object, member by member, as a whole or not at all."""
    with atomic_path(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write("{")
        for number, (name, value) in enumerate(members):
            file.write(f"{',' if number else ''}\n{json.dumps(name)}: {json.dumps(value)}")
        file.write("\n}\n")
