"""Writes toy videos in the layouts of ReVOS and ReasonVOS, which `veason.data.revos` and `.reasonvos` document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from veason.files import write_json
from veason.masks import Rle, as_json, encode
from veason.toy.expressions import Query
from veason.toy.toy_video import ToyVideo, scene_meta, write_frames, write_masks, write_scenes


class MaskDictWriter:
    """Assigns annotation ids to the objects of a data set's videos and collects their masks."""

    def __init__(self) -> None:
        self.masks: dict[str, list[Rle | None]] = {}

    def add(self, tracks: Sequence[list[Rle | None]]) -> list[int]:
        """Adds the masks of a video's objects; returns their annotation ids."""
        ids = range(len(self.masks), len(self.masks) + len(tracks))
        self.masks |= {str(anno_id): track for anno_id, track in zip(ids, tracks)}
        return list(ids)


def video_meta(frame_names: Sequence[str], size: tuple[int, ...], number: int, expressions: Any) -> dict[str, Any]:
    """A video's entry in a meta_expressions file; `size` is height and width."""
    return {
        "expressions": expressions,
        "vid_id": number,
        "frames": list(frame_names),
        "height": size[0],
        "width": size[1],
    }


def expression_meta(query: Query, ids: Sequence[int]) -> dict[str, Any]:
    """An expression's entry; `ids` are the annotation ids of the objects."""
    meta = {"exp": query.text, "obj_id": list(query.targets), "anno_id": [ids[shape] for shape in query.targets]}
    return {**meta, "type_id": query.type_id}


@dataclass(frozen=True)
class RevosAnnotation:
    """A video's entries in the files of ReVOS; its frames are on disk.

    Attributes:
        size: height and width in pixels.
        tracks: per object its RLE (or None) in each frame.
        foreground: entry in mask_dict_foreground.json.
        scene: entry in scenes.json.
    """

    name: str
    frame_names: list[str]
    size: tuple[int, ...]
    queries: list[Query]
    tracks: list[list[Rle | None]]
    foreground: dict[str, Any]
    scene: dict[str, Any]


def make_revos_annotation(root: Path, video: ToyVideo) -> RevosAnnotation:
    """Writes the frames of a video; returns its other entries."""
    write_frames(root / "JPEGImages" / video.name, video)
    union = video.union(range(len(video.facts)))
    ratios = [round(float(mask.mean()), 6) for mask in union]
    foreground = {"masks_rle": [as_json(encode(mask)) for mask in union], "foreground_ratio": ratios}
    size = video.frames.shape[1:3]
    return RevosAnnotation(
        video.name, video.frame_names, size, video.queries, video.tracks(), foreground, scene_meta(video)
    )


def write_revos(root: Path, splits: Mapping[str, Iterable[ToyVideo]]) -> None:
    """Writes a toy ReVOS; `splits` maps train and valid to their videos."""
    write_revos_files(
        root, {split: [make_revos_annotation(root, video) for video in videos] for split, videos in splits.items()}
    )


def write_revos_files(root: Path, splits: Mapping[str, Sequence[RevosAnnotation]]) -> None:
    """Writes everything but the frames; masks of all splits are in one mask_dict.json, as in ReVOS."""
    writer, foreground = MaskDictWriter(), {}
    for split, entries in splits.items():
        metas = {}
        for number, entry in enumerate(entries):
            ids = writer.add(entry.tracks)
            expressions = {str(k): expression_meta(query, ids) for k, query in enumerate(entry.queries)}
            metas[entry.name] = video_meta(entry.frame_names, entry.size, number, expressions)
            foreground[entry.name] = entry.foreground
        write_json(root / f"meta_expressions_{split}_.json", {"videos": metas}, indent=None)
        write_scenes(root, {entry.name: entry.scene for entry in entries}, split)
    write_json(root / "mask_dict.json", writer.masks, indent=None)
    write_json(root / "mask_dict_foreground.json", foreground, indent=None)


def write_reasonvos(root: Path, videos: Sequence[ToyVideo]) -> None:
    """Writes a toy ReasonVOS in the official form: one target per expression, expressions in a list, exp_ids counted
    anew for each object, and a mask folder with one PNG (0 and 255) per frame.
    """
    metas: dict[str, Any] = {}
    for video in videos:
        listed = [query for query in video.queries if len(query.targets) == 1]
        numbers: Counter[int] = Counter()
        expressions = []
        for query in listed:
            (shape,) = query.targets
            expressions.append(
                {"obj_id": shape, "exp_id": numbers[shape], "exp_text": query.text, "is_sent": query.type_id == 1}
            )
            numbers[shape] += 1
        metas[video.name] = {"source": "toy", "frames": video.frame_names, "expressions": expressions}
        write_frames(root / "JPEGImages" / video.name, video)
        for shape in numbers:
            folder = root / "Annotations" / f"toy_{video.name}_{shape}"
            write_masks(folder, video.frame_names, video.union([shape]).astype(np.uint8) * 255)
    write_json(root / "meta_expressions.json", {"videos": metas})
    write_scenes(root, {video.name: scene_meta(video) for video in videos}, "test")
