"""ReVOS (Yan et al., ECCV 2024): referring, reasoning and absent targets, one or several objects.

ROOT/JPEGImages/<video>/<frame>.jpg
ROOT/meta_expressions_{train,valid}_.json    videos -> video -> expressions {exp_id: exp, obj_id, anno_id, type_id}, frames, height, width
ROOT/mask_dict.json                          anno_id -> one RLE or null per frame of the video
ROOT/mask_dict_foreground.json               video -> masks_rle, every object of the video
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from veason import masks
from veason.datasets.base import Benchmark, VideoSample, expressions_of, read_videos, video_size
from veason.errors import DataError
from veason.mask_index import MaskIndex


class MaskDictBenchmark(Benchmark):
    """A benchmark whose truth is a mask_dict.json: {anno_id: one RLE or null per frame}."""

    mask_file: ClassVar[str] = "mask_dict.json"

    @cached_property
    def index(self) -> MaskIndex:
        return MaskIndex.open(self.meta_path.parent / self.mask_file)

    def read_samples(self) -> Iterator[VideoSample]:
        for video, meta in read_videos(self.meta_path).items():
            frames = tuple(sorted(meta["frames"]))
            folder = self.meta_path.parent / "JPEGImages" / video
            if not frames:
                raise DataError(f"{self.meta_path}: video {video} has no frames")
            height, width = video_size(meta, folder / (frames[0] + self.suffix))
            for exp_id, expression in expressions_of(meta):
                yield self.sample(video, exp_id, expression, frames, height, width)

    def sample(self, video: str, exp_id: str, expression: dict[str, Any], frames: tuple[str, ...], height: int, width: int) -> VideoSample:
        """One expression of the annotation file as a sample."""
        if "exp" not in expression:
            raise DataError(f'{self.meta_path}: video {video}, expression {exp_id} has no "exp"')
        type_id = expression.get("type_id")
        object_ids = () if type_id == 2 else tuple(str(anno_id) for anno_id in expression.get("anno_id", ()))
        return VideoSample(
            sample_id=f"{video}/{exp_id}",
            video=video,
            exp_id=exp_id,
            expression=expression["exp"],
            frame_dir=self.meta_path.parent / "JPEGImages" / video,
            frames=frames,
            height=height,
            width=width,
            type_id=type_id,
            object_ids=object_ids,
            result_dir=f"Annotations/{video}/{exp_id}",
            num_objects=len(object_ids),
        )

    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[masks.Rle | None]]:
        tracks = []
        for anno_id in sample.object_ids:
            track = self.index[anno_id]
            if len(track) < len(sample.frames):
                raise DataError(f"{self.index.source}: id {anno_id!r} has {len(track)} masks, the video has {len(sample.frames)} frames")
            tracks.append([track[index] for index in frame_indices])
        return tracks

    def problems(self, sample: VideoSample) -> list[str]:
        found = super().problems(sample)
        if not self.has_truth:
            return found
        present = 0
        for anno_id in sample.object_ids:
            track = self.index.summaries.get(anno_id)
            if track is None:
                found.append(f"{self.index.source} has no masks for id {anno_id!r}")
                continue
            present += track.present
            if track.frames < len(sample.frames):
                found.append(f"{self.index.source}: id {anno_id!r} has {track.frames} masks, the video has {len(sample.frames)} frames")
            if track.size not in (None, (sample.height, sample.width)):
                found.append(f"{self.index.source}: id {anno_id!r} has masks of {track.size}, frames are {(sample.height, sample.width)}")
        if not present and not found and sample.type_id != 2:
            found.append(f"{self.index.source}: the target has no mask in any frame (ids {', '.join(sample.object_ids) or 'none'})")
        return found


class ReVOS(MaskDictBenchmark):
    name = "revos"
    splits: ClassVar[dict[str, str]] = {"valid": "meta_expressions_valid_.json", "train": "meta_expressions_train_.json"}

    @cached_property
    def foreground_index(self) -> MaskIndex:
        return MaskIndex.open(self.root / "mask_dict_foreground.json")

    def foreground(self, sample: VideoSample) -> np.ndarray:
        """Every object of the video, uint8 [T, H, W]."""
        out = np.zeros((len(sample.frames), sample.height, sample.width), dtype=np.uint8)
        track = self.foreground_index[sample.video]
        if len(track) < len(out):
            raise DataError(f"{self.foreground_index.source}: video {sample.video} has {len(track)} masks and {len(out)} frames")
        for position, rle in enumerate(track[: len(out)]):
            if rle is not None:
                out[position] = masks.decode(rle)
        return out
