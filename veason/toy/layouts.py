"""Writes toy videos as the benchmarks lay theirs out: ReVOS, ReasonVOS, MeViS, ViCaS, Ref-YouTube-VOS and Ref-DAVIS17."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from veason import masks
from veason.toy.expressions import Query
from veason.toy.facts import ObjectFacts


@dataclass(frozen=True)
class ToyVideo:
    """One drawn video with everything that is known about it.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        visible: bool [T, K, H, W], the pixels of each shape that no nearer one covers.
        facts: one per shape.
        queries: the expressions about the video.
    """

    name: str
    frames: np.ndarray
    visible: np.ndarray
    facts: list[ObjectFacts]
    queries: list[Query]

    @property
    def frame_names(self) -> list[str]:
        return [f"{time:05d}" for time in range(len(self.frames))]

    def track(self, shape: int) -> list[masks.Rle | None]:
        """The shape's mask in each frame, None where it is not in view, with counts as text."""
        seen = self.facts[shape].boxes
        return [None if box is None else text_rle(mask) for mask, box in zip(self.visible[:, shape], seen)]

    def union(self, shapes: Sequence[int]) -> np.ndarray:
        """bool [T, H, W], the pixels of any of the shapes where it is in view."""
        out = np.zeros(self.visible.shape[:1] + self.visible.shape[2:], dtype=bool)
        for shape in shapes:
            seen = np.array([box is not None for box in self.facts[shape].boxes])
            out |= self.visible[:, shape] & seen[:, None, None]
        return out


def text_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask's RLE as JSON takes it: sizes as integers, counts as text."""
    rle = masks.encode(mask)
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_frames(folder: Path, video: ToyVideo, quality: int = 92) -> None:
    """The frames as `<folder>/<frame>.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(video.frame_names, video.frames):
        Image.fromarray(frame).save(folder / f"{name}.jpg", quality=quality)


def write_scenes(root: Path, videos: Sequence[ToyVideo], split: str) -> None:
    """`scenes.json`, what the toy teacher knows: the shapes' facts and the shapes that an expression means. Splits are added up."""
    path = root / "scenes.json"
    scenes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"videos": {}}
    for video in videos:
        expressions = {str(number): asdict(query) for number, query in enumerate(video.queries)}
        objects = [asdict(fact) for fact in video.facts]
        scenes["videos"][video.name] = {"split": split, "objects": objects, "expressions": expressions}
    write_json(path, scenes)


class MaskDictWriter:
    """Gives annotation ids to the shapes of a data set's videos and keeps their masks."""

    def __init__(self) -> None:
        self.masks: dict[str, list] = {}

    def add(self, video: ToyVideo) -> list[int]:
        """The annotation id of each shape of the video."""
        ids = range(len(self.masks), len(self.masks) + len(video.facts))
        self.masks |= {str(anno_id): video.track(shape) for shape, anno_id in enumerate(ids)}
        return list(ids)


def video_meta(video: ToyVideo, number: int, expressions: Any) -> dict[str, Any]:
    height, width = video.frames.shape[1:3]
    return {"expressions": expressions, "vid_id": number, "frames": video.frame_names, "height": height, "width": width}


def expression_meta(query: Query, ids: Sequence[int], typed: bool = True) -> dict[str, Any]:
    meta = {"exp": query.text, "obj_id": list(query.targets), "anno_id": [ids[shape] for shape in query.targets]}
    return {**meta, "type_id": query.type_id} if typed else meta


def write_revos(root: Path, splits: dict[str, Sequence[ToyVideo]]) -> None:
    """`splits` maps train and valid to their videos; masks of both are in one mask_dict.json, as in ReVOS."""
    writer, foreground = MaskDictWriter(), {}
    for split, videos in splits.items():
        metas = {}
        for number, video in enumerate(videos):
            ids = writer.add(video)
            expressions = {str(k): expression_meta(query, ids) for k, query in enumerate(video.queries)}
            metas[video.name] = video_meta(video, number, expressions)
            everything = video.union(range(len(video.facts)))
            ratios = [round(float(mask.mean()), 6) for mask in everything]
            foreground[video.name] = {"masks_rle": [text_rle(mask) for mask in everything], "foreground_ratio": ratios}
            write_frames(root / "JPEGImages" / video.name, video)
        write_json(root / f"meta_expressions_{split}_.json", {"videos": metas})
        write_scenes(root, videos, split)
    write_json(root / "mask_dict.json", writer.masks)
    write_json(root / "mask_dict_foreground.json", foreground)


def write_reasonvos(root: Path, videos: Sequence[ToyVideo], source: str = "toy") -> None:
    """Questions about one object each; a mask folder holds one PNG of 0 and 255 per frame. The original release's file is written too."""
    metas: dict[str, Any] = {}
    for video in videos:
        listed = [(k, query) for k, query in enumerate(video.queries) if len(query.targets) == 1]
        expressions = [{"exp_text": query.text, "obj_id": str(query.targets[0]), "exp_id": str(k)} for k, query in listed]
        metas[video.name] = {"source": source, "is_sent": False, "frames": video.frame_names, "expressions": expressions}
        write_frames(root / "JPEGImages" / video.name, video)
        for shape in {query.targets[0] for _, query in listed}:
            folder = root / "Annotations" / f"{source}_{video.name}_{shape}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, mask in zip(video.frame_names, video.union([shape])):
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")
    write_json(root / "meta_expressions_.json", {"videos": metas})
    original = {name: {**meta, "expressions": {e["exp_id"]: e for e in meta["expressions"]}} for name, meta in metas.items()}
    write_json(root / "meta_expressions.json", {"videos": original})
    write_scenes(root, videos, "test")
