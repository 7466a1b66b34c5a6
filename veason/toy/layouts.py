"""Writes toy videos in the layouts of ReVOS, ReasonVOS, MeViS, ViCaS, Ref-YouTube-VOS and Ref-DAVIS17.

The layouts are documented in the benchmarks' readers, `veason/data/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from veason.masks import Rle
from veason.toy.expressions import Query
from veason.toy.video import ToyVideo, scene_meta, text_rle, write_frames, write_json, write_masks, write_scenes


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


def expression_meta(query: Query, ids: Sequence[int], typed: bool = True) -> dict[str, Any]:
    """An expression's entry; `ids` are the annotation ids of the objects; `typed` adds `type_id`, as in ReVOS."""
    meta = {"exp": query.text, "obj_id": list(query.targets), "anno_id": [ids[shape] for shape in query.targets]}
    return {**meta, "type_id": query.type_id} if typed else meta


@dataclass(frozen=True)
class RevosEntry:
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


def revos_entry(root: Path, video: ToyVideo) -> RevosEntry:
    """Writes the frames of a video; returns its other entries."""
    write_frames(root / "JPEGImages" / video.name, video)
    union = video.union(range(len(video.facts)))
    ratios = [round(float(mask.mean()), 6) for mask in union]
    foreground = {"masks_rle": [text_rle(mask) for mask in union], "foreground_ratio": ratios}
    size = video.frames.shape[1:3]
    return RevosEntry(video.name, video.frame_names, size, video.queries, video.tracks(), foreground, scene_meta(video))


def write_revos(root: Path, splits: Mapping[str, Iterable[ToyVideo]]) -> None:
    """Writes a toy ReVOS; `splits` maps train and valid to their videos."""
    write_revos_files(root, {split: [revos_entry(root, video) for video in videos] for split, videos in splits.items()})


def write_revos_files(root: Path, splits: Mapping[str, Sequence[RevosEntry]]) -> None:
    """Writes everything but the frames; masks of all splits are in one mask_dict.json, as in ReVOS."""
    writer, foreground = MaskDictWriter(), {}
    for split, entries in splits.items():
        metas = {}
        for number, entry in enumerate(entries):
            ids = writer.add(entry.tracks)
            expressions = {str(k): expression_meta(query, ids) for k, query in enumerate(entry.queries)}
            metas[entry.name] = video_meta(entry.frame_names, entry.size, number, expressions)
            foreground[entry.name] = entry.foreground
        write_json(root / f"meta_expressions_{split}_.json", {"videos": metas})
        write_scenes(root, {entry.name: entry.scene for entry in entries}, split)
    write_json(root / "mask_dict.json", writer.masks)
    write_json(root / "mask_dict_foreground.json", foreground)


def write_reasonvos(root: Path, videos: Sequence[ToyVideo], source: str = "toy") -> None:
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
        metas[video.name] = {"source": source, "frames": video.frame_names, "expressions": expressions}
        write_frames(root / "JPEGImages" / video.name, video)
        for shape in numbers:
            folder = root / "Annotations" / f"{source}_{video.name}_{shape}"
            write_masks(folder, video.frame_names, video.union([shape]).astype(np.uint8) * 255)
    write_json(root / "meta_expressions.json", {"videos": metas})
    write_scenes(root, {video.name: scene_meta(video) for video in videos}, "test")


def write_mevis(root: Path, videos: Sequence[ToyVideo]) -> None:
    """Writes a toy MeViS: split valid_u with ground truth, and the same videos as valid without."""
    writer, metas, hidden = MaskDictWriter(), dict[str, Any](), dict[str, Any]()
    for number, video in enumerate(videos):
        ids = writer.add(video.tracks())
        found = [query for query in video.queries if query.targets]
        described = {str(k): expression_meta(query, ids, typed=False) for k, query in enumerate(found)}
        for meta, expressions in (
            (metas, described),
            (hidden, {str(k): {"exp": query.text} for k, query in enumerate(found)}),
        ):
            meta[video.name] = video_meta(video.frame_names, video.frames.shape[1:3], number, expressions)
        for split in ("valid_u", "valid"):
            write_frames(root / split / "JPEGImages" / video.name, video)
    write_json(root / "valid_u" / "meta_expressions.json", {"videos": metas})
    write_json(root / "valid_u" / "mask_dict.json", writer.masks)
    write_json(root / "valid" / "meta_expressions.json", {"videos": hidden})


def write_vicas(root: Path, videos: Sequence[ToyVideo], version: str = "v1.0", every: int = 2) -> None:
    """Writes a toy ViCaS, split val; every second frame is marked as annotated by hand (`is_gt`)."""
    for number, video in enumerate(videos, start=1):
        segmentations = []
        tracks = video.tracks()
        for time in range(len(video.frames)):
            present = [(shape + 1, track[time]) for shape, track in enumerate(tracks) if track[time] is not None]
            ids, rles = [shape for shape, _ in present], [rle for _, rle in present]
            filename = f"{time:06d}.jpg"
            segmentations.append(
                {"filename": filename, "is_gt": time % every == 0, "track_ids": ids, "mask_rles": rles}
            )
        referrals = [
            {"prompt": q.text, "track_ids": [shape + 1 for shape in q.targets]} for q in video.queries if q.targets
        ]
        content = {"video_id": number, "image_size": list(video.frames.shape[1:3]), "object_referrals": referrals}
        write_json(root / "annotations" / version / f"{number:06d}.json", {**content, "segmentations": segmentations})
        write_frames(root / "video_frames" / f"{number:06d}", video, digits=6)
    write_json(root / "splits" / version / "val.json", list(range(1, len(videos) + 1)))


def write_refytvos(root: Path, videos: Sequence[ToyVideo]) -> None:
    """Writes a toy Ref-YouTube-VOS: split train with ground truth, valid without.

    The last video is listed in both valid and test, as in the challenge.
    """
    metas: dict[str, Any] = {}
    for video in videos:
        found = [query for query in video.queries if len(query.targets) == 1]
        expressions = {
            str(k): {"exp": query.text, "obj_id": str(query.targets[0] + 1)} for k, query in enumerate(found)
        }
        metas[video.name] = {"expressions": expressions, "frames": video.frame_names}
        for split in ("train", "valid"):
            write_frames(root / split / "JPEGImages" / video.name, video)
        write_masks(root / "train" / "Annotations" / video.name, video.frame_names, object_numbers(video))
    hidden = {
        name: {**meta, "expressions": {k: {"exp": e["exp"]} for k, e in meta["expressions"].items()}}
        for name, meta in metas.items()
    }
    last = videos[-1].name
    for split, content in (("train", metas), ("valid", hidden), ("test", {last: hidden[last]})):
        write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": content})


def write_refdavis17(root: Path, videos: Sequence[ToyVideo]) -> None:
    """Writes a toy Ref-DAVIS17, split valid: four descriptions per object, object by object."""
    metas: dict[str, Any] = {}
    for video in videos:
        texts: list[dict[str, str]] = []
        for number, fact in enumerate(video.facts, start=1):
            descriptions = (
                f"the {fact.name}",
                f"a {fact.name}",
                f"the {fact.texture} {fact.name}",
                f"a {fact.colour} {fact.texture} {fact.shape}",
            )
            texts.extend({"exp": text, "obj_id": str(number)} for text in descriptions)
        metas[video.name] = {
            "expressions": {str(k): expression for k, expression in enumerate(texts)},
            "frames": video.frame_names,
        }
        write_frames(root / "valid" / "JPEGImages" / video.name, video)
        write_masks(root / "valid" / "Annotations" / video.name, video.frame_names, object_numbers(video))
    write_json(root / "meta_expressions" / "valid" / "meta_expressions.json", {"videos": metas})


def object_numbers(video: ToyVideo) -> np.ndarray:
    """Label maps uint8 [T, H, W]: 1 + the index of the visible object, 0 for the background."""
    out = np.zeros(video.frames.shape[:3], dtype=np.uint8)
    for shape in range(len(video.facts)):
        out[video.union([shape])] = shape + 1
    return out


# benchmark name -> writer of its evaluation split
LAYOUTS: dict[str, Callable[[Path, Sequence[ToyVideo]], None]] = {
    "revos": lambda root, videos: write_revos(root, {"valid": videos}),
    "reasonvos": write_reasonvos,
    "mevis": write_mevis,
    "vicas": write_vicas,
    "refytvos": write_refytvos,
    "refdavis17": write_refdavis17,
}
