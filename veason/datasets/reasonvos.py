"""ReasonVOS (Bai et al., NeurIPS 2024): questions about one object, over videos of four sources.

    ROOT/JPEGImages/<video>/<frame>.jpg
    ROOT/meta_expressions_.json                  videos -> video -> source, frames, expressions [{exp_text, obj_id, exp_id}]
    ROOT/Annotations/<source>_<video>_<obj_id>/<frame>.png     where the truth is at hand: 8-bit, not 0 is the object

The file of the original release, meta_expressions.json, has its expressions as an object; both are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from PIL import Image

from veason import masks
from veason.datasets.base import Benchmark, VideoSample, expressions_of, read_videos, video_size
from veason.errors import DataError


class ReasonVOS(Benchmark):
    name = "reasonvos"
    splits: ClassVar[dict[str, str]] = {"test": "meta_expressions_.json", "original": "meta_expressions.json"}

    @cached_property
    def has_truth(self) -> bool:  # type: ignore[override]
        return (self.root / "Annotations").is_dir()

    def read_samples(self) -> Iterator[VideoSample]:
        for video, meta in read_videos(self.meta_path).items():
            frames = tuple(sorted(meta["frames"]))
            folder = self.root / "JPEGImages" / video
            if not frames:
                raise DataError(f"{self.meta_path}: video {video} has no frames")
            height, width = video_size(meta, folder / (frames[0] + self.suffix))
            for exp_id, expression in expressions_of(meta):
                text = expression.get("exp_text", expression.get("exp"))
                if text is None or "obj_id" not in expression:
                    raise DataError(f"{self.meta_path}: video {video}, expression {exp_id} has no exp_text or no obj_id")
                target = f"{meta['source']}_{video}_{expression['obj_id']}"
                yield VideoSample(
                    sample_id=f"{target}/{exp_id}",  # exp_id alone need not be unique in a video
                    video=video,
                    exp_id=str(exp_id),
                    expression=text,
                    frame_dir=folder,
                    frames=frames,
                    height=height,
                    width=width,
                    type_id=1,
                    object_ids=(target,),
                    result_dir=f"Annotations/{target}/{exp_id}",
                    num_objects=1,
                )

    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[masks.Rle | None]]:
        folder = self.root / "Annotations" / sample.object_ids[0]
        return [[masks.encode(read_mask(folder / f"{sample.frames[index]}.png")) for index in frame_indices]]


def read_mask(path) -> np.ndarray:
    """The values of a PNG mask, uint8 [H, W]: 0/255, or the object numbers of a palette picture."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture if picture.mode in ("L", "P") else picture.convert("L"))
    except FileNotFoundError:
        raise DataError(f"mask is missing: {path}") from None
    except (OSError, SyntaxError) as error:
        raise DataError(f"mask cannot be read: {path} ({error})") from error
