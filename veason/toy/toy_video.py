"""A rendered video with its ground truth, and the files that every layout writes: frames, masks and scene metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from veason import masks
from veason.files import write_json
from veason.toy.expressions import Query
from veason.toy.facts import ObjectFacts

JPEG_QUALITY = 92


@dataclass(frozen=True)
class ToyVideo:
    """One rendered video with its ground truth.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        visible: bool [T, K, H, W], each object's pixels that no nearer object occludes.
        facts: one per object.
        queries: the expressions about the video.
    """

    name: str
    frames: np.ndarray
    visible: np.ndarray
    facts: list[ObjectFacts]
    queries: list[Query]

    @property
    def frame_names(self) -> list[str]:
        return [f"{index:05d}" for index in range(len(self.frames))]

    def tracks(self) -> list[list[masks.Rle | None]]:
        """Per object its RLE in each frame, None where it is not visible, with counts as text."""
        return [
            [
                None if box is None else masks.as_json(masks.encode(mask))
                for mask, box in zip(self.visible[:, shape], fact.boxes)
            ]
            for shape, fact in enumerate(self.facts)
        ]

    def union(self, shapes: Sequence[int]) -> np.ndarray:
        """The union of the visible masks of some objects, bool [T, H, W]."""
        out = np.zeros(self.visible.shape[:1] + self.visible.shape[2:], dtype=bool)
        for shape in shapes:
            seen = np.array([box is not None for box in self.facts[shape].boxes])
            out |= self.visible[:, shape] & seen[:, None, None]
        return out


def write_frames(folder: Path, video: ToyVideo, digits: int = 5) -> None:
    """Writes the frames as `<folder>/<index>.jpg`, the index with `digits` digits."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(video.frames):
        Image.fromarray(frame).save(folder / f"{index:0{digits}d}.jpg", quality=JPEG_QUALITY)


def write_clip(path: str | Path, frames: np.ndarray, fps: int) -> None:
    """Writes frames, uint8 [T, H, W, 3] RGB, as H.264 in MP4."""
    import av

    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "14", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def write_masks(folder: Path, names: Sequence[str], values: np.ndarray) -> None:
    """Writes uint8 [T, H, W] as `<folder>/<name>.png`, 8-bit grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in zip(names, values):
        Image.fromarray(mask).save(folder / f"{name}.png")


def scene_meta(video: ToyVideo) -> dict[str, Any]:
    """A video's entry in scenes.json: the facts of its objects and its expressions, for the toy teacher."""
    expressions = {str(number): asdict(query) for number, query in enumerate(video.queries)}
    return {"objects": [asdict(fact) for fact in video.facts], "expressions": expressions}


def write_scenes(root: Path, scenes: Mapping[str, dict[str, Any]], split: str) -> None:
    """Adds videos to `scenes.json`: video name -> split and `scene_meta`."""
    path = root / "scenes.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"videos": {}}
    content["videos"] |= {name: {"split": split, **scene} for name, scene in scenes.items()}
    write_json(path, content, indent=None)
