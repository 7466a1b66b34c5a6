"""Writes toy videos in the layouts of the benchmarks that the toy world does not offer, for tests of their readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veason.files import write_json
from veason.toy.layout_writers import MaskDictWriter, expression_meta, video_meta, write_reasonvos, write_revos
from veason.toy.toy_video import ToyVideo, write_frames, write_masks


def write_mevis(root: Path, videos: Sequence[ToyVideo]) -> None:
    """Writes a toy MeViS: split valid_u with ground truth, and the same videos as valid without."""
    writer, metas, hidden = MaskDictWriter(), dict[str, Any](), dict[str, Any]()
    for number, video in enumerate(videos):
        ids = writer.add(video.tracks())
        found = [query for query in video.queries if query.targets]
        described = {str(k): _untyped(expression_meta(query, ids)) for k, query in enumerate(found)}
        for meta, expressions in (
            (metas, described),
            (hidden, {str(k): {"exp": query.text} for k, query in enumerate(found)}),
        ):
            meta[video.name] = video_meta(video.frame_names, video.frames.shape[1:3], number, expressions)
        for split in ("valid_u", "valid"):
            write_frames(root / split / "JPEGImages" / video.name, video)
    write_json(root / "valid_u" / "meta_expressions.json", {"videos": metas}, indent=None)
    write_json(root / "valid_u" / "mask_dict.json", writer.masks, indent=None)
    write_json(root / "valid" / "meta_expressions.json", {"videos": hidden}, indent=None)


def _untyped(meta: dict[str, Any]) -> dict[str, Any]:
    """An expression's entry without the type, which only ReVOS has."""
    return {key: value for key, value in meta.items() if key != "type_id"}


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
        write_json(
            root / "annotations" / version / f"{number:06d}.json",
            {**content, "segmentations": segmentations},
            indent=None,
        )
        write_frames(root / "video_frames" / f"{number:06d}", video, digits=6)
    write_json(root / "splits" / version / "val.json", list(range(1, len(videos) + 1)), indent=None)


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
        write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": content}, indent=None)


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
    write_json(root / "meta_expressions" / "valid" / "meta_expressions.json", {"videos": metas}, indent=None)


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
