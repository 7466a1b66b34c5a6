"""Layouts that benchmarks share: one annotation file of expressions, and ground truth as a mask_dict.json or as
PNGs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason import masks
from veason.data.annotation import as_id, as_ids, as_mapping, as_name, as_names, as_size, check_type_id, pairs_by_id
from veason.data.base import UnknownObjectError, VideoBenchmark
from veason.data.mask_index import MaskIndex
from veason.data.png_index import MaskFolder, PngIndex
from veason.data.sample import VideoSample, read_json
from veason.errors import DataError
from veason.frames import first_size
from veason.masks import Rle

Targets = tuple[int | None, tuple[str, ...]]  # the `type_id` and `object_ids` of an expression


class ExpressionsBenchmark(VideoBenchmark):
    """A benchmark listed in one file: {"videos": {video: {"frames": [...], "expressions": {exp_id: {"exp": ...}}}}}.

    Expressions may also be a list. Height and width are taken from the annotation, or else from the header of the first
    frame that can be read.
    """

    text_key: ClassVar[str] = "exp"

    @property
    def folder(self) -> Path:
        """The folder of the frames and the masks; by default that of the annotation file."""
        return self.meta_path.parent

    def frame_folder(self, video: str) -> Path:
        return self.folder / "JPEGImages" / video

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        """The type and the target objects of an expression, as far as the annotation gives them."""
        return None, ()

    def category(self, expression: dict[str, Any]) -> str | None:
        """The benchmark's own kind of an expression, as its columns group them."""
        return None

    def sample_prefix(self, video: str, object_ids: tuple[str, ...]) -> str:
        """The part of a sample's id before the exp_id."""
        return video

    def read_samples(self) -> Iterator[VideoSample]:
        for video, meta in self.read_videos().items():
            where = f"{self.meta_path}: video {video}"
            try:
                folder = self.frame_folder(as_name(video, "its name", folders=True))
                frames, size = self._read_frames(as_mapping(meta, "its entry"), folder)
                expressions = list(pairs_by_id(meta.get("expressions")))
            except DataError as error:
                self.reject(video, video, f"{where}: {error}")
                continue
            for exp_id, expression in expressions:
                try:
                    sample = self._read_sample(video, meta, exp_id, expression, folder, frames, size or (0, 0))
                except DataError as error:
                    self.reject(f"{video}/{exp_id}", video, f"{where}, expression {exp_id}: {error}")
                    continue
                if size is None and (size := self.mask_size(sample)):
                    sample = sample._replace(height=size[0], width=size[1])
                yield sample

    def _read_frames(self, meta: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], tuple[int, int] | None]:
        """The names of a video's frames, and their height and width; None where no frame tells it."""
        if not meta.get("frames"):
            raise DataError("it has no frames")
        frames = as_names(meta["frames"], "its frames")
        if "height" in meta and "width" in meta:
            return frames, as_size(meta["height"], meta["width"])
        return frames, first_size(folder / (frame + self.suffix) for frame in frames)

    def _read_sample(
        self,
        video: str,
        meta: Mapping[str, Any],
        exp_id: Any,
        expression: Any,
        folder: Path,
        frames: tuple[str, ...],
        size: tuple[int, int],
    ) -> VideoSample:
        asked, name = as_mapping(expression, "it"), as_id(exp_id, "its id")
        try:
            text, (type_id, object_ids) = asked[self.text_key], self.parse_targets(video, dict(meta), dict(asked))
            kind = self.category(dict(asked))
        except KeyError as error:
            raise DataError(f"it has no {error}") from error
        sample_id = f"{self.sample_prefix(video, object_ids)}/{name}"
        return VideoSample(sample_id, video, name, text, folder, frames, *size, type_id, object_ids, kind)

    def read_videos(self) -> dict[str, dict[str, Any]]:
        """The annotation file's videos. A subclass may leave some out."""
        content = read_json(self.meta_path)
        if not isinstance(content, dict) or not isinstance(content.get("videos"), dict):
            raise DataError(f'annotation file has no "videos": {self.meta_path}')
        return content["videos"]

    def mask_size(self, sample: VideoSample) -> tuple[int, int] | None:
        """Height and width of a sample's masks, where no frame tells the size; None where no mask does either."""
        return None


class MaskDictBenchmark(ExpressionsBenchmark):
    """Ground truth as mask_dict.json beside the annotation file: {anno_id: one RLE or null per frame of the video}."""

    masks_validated = True  # the index has checked them
    needs_type: ClassVar[bool] = False  # whether every expression has a `type_id`

    @cached_property
    def index(self) -> MaskIndex:
        return MaskIndex.open(self.folder / "mask_dict.json")

    def ground_truth_path(self, sample: VideoSample) -> Path:
        return self.index.source

    def build_index(self) -> None:
        if self.has_ground_truth:
            len(self.index)

    @cached_property
    def validated_videos(self) -> set[str]:
        """Videos with all their frames, whose objects all have masks that fit; checked once for all expressions."""
        if not self.has_ground_truth:
            return set()
        videos: dict[str, VideoSample] = {}
        objects: dict[str, set[str]] = {}
        without_object = set()  # videos with an expression that names no object
        for sample in self.samples:
            if sample.video not in videos:
                videos[sample.video], objects[sample.video] = sample, set()
            objects[sample.video].update(sample.object_ids)
            if not sample.object_ids and sample.type_id != 2:
                without_object.add(sample.video)
        frame_problems = self.frame_problems
        return {
            video
            for video, sample in videos.items()
            if video not in without_object
            and all(self._fits(anno_id, sample) for anno_id in objects[video])
            and not frame_problems(sample)
        }

    def _fits(self, anno_id: str, sample: VideoSample) -> bool:
        """Whether an object has pixels somewhere and a mask of the right size for every frame."""
        track = self.index.summaries.get(anno_id)
        if track is None or not track.present or track.damage:
            return False
        return track.frames >= len(sample.frames) and track.size == (sample.height, sample.width)

    def parse_targets(self, video: str, meta: dict[str, Any], expression: dict[str, Any]) -> Targets:
        type_id = expression["type_id"] if self.needs_type else expression.get("type_id")
        if self.needs_type:
            check_type_id(type_id)
        return type_id, () if type_id == 2 or not self.has_ground_truth else as_ids(
            expression["anno_id"], "its anno_id"
        )

    def mask_size(self, sample: VideoSample) -> tuple[int, int] | None:
        if not self.has_ground_truth or not (self.folder / "mask_dict.json").is_file():
            return None
        known = (self.index.summaries.get(anno_id) for anno_id in sample.object_ids)
        return next((track.size for track in known if track is not None and track.size), None)

    def annotated_masks(self, sample: VideoSample, object_id: str) -> list[Rle | None]:
        if object_id not in self.index:
            raise UnknownObjectError(f"{self.index.source} has no masks for id {object_id!r}")
        if damage := self.index.summaries[object_id].damage:
            raise DataError(f"{self.index.source}: id {object_id!r}, {damage}")
        return self.index[object_id]

    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        tracks = []
        for anno_id in sample.object_ids:
            if found := self.index.track_problems(anno_id, sample):
                raise DataError(found[0])
            track = self.index[anno_id]
            tracks.append([track[index] for index in frame_indices])
        return tracks

    def problems(self, sample: VideoSample) -> list[str]:
        return [] if sample.video in self.validated_videos else super().problems(sample)

    def ground_truth_problems(self, sample: VideoSample) -> list[str]:
        found = super().ground_truth_problems(sample)
        return found + [wrong for anno_id in sample.object_ids for wrong in self.index.track_problems(anno_id, sample)]

    def mask_problems(self, sample: VideoSample) -> list[str]:
        return []  # the index has checked every mask

    def training_problems(self, sample: VideoSample) -> list[str]:
        """`problems`, and that a target has no pixel in any frame, from which nothing can be learned."""
        if sample.video in self.validated_videos:
            return []
        found, summaries = self.problems(sample), self.index.summaries
        if found or sample.type_id == 2 or any(summaries[anno_id].present for anno_id in sample.object_ids):
            return found
        return [f"{self.index.source}: no mask in any frame (ids {', '.join(sample.object_ids) or 'none'})"]


class PngBenchmark(ExpressionsBenchmark):
    """Ground truth as one PNG a frame, whose values are object numbers: `object_ids` holds the number."""

    masks_validated = True
    numbered: ClassVar[bool] = True  # False: a PNG shows one object, whatever its colour
    sparse: ClassVar[bool] = False  # whether a frame without a PNG is one without the object; else it is missing
    index: PngIndex | None = None  # of all masks, see `build_index`
    indexed_frames: Mapping[str, tuple[str, ...]] = {}  # folder of masks -> its frames with a PNG

    def mask_folder(self, sample: VideoSample) -> Path:
        return self.folder / "Annotations" / sample.video

    def mask_path(self, sample: VideoSample, index: int) -> Path:
        """The PNG of the frame at a position in `sample.frames`."""
        return self.mask_folder(sample) / f"{sample.frames[index]}.png"

    def ground_truth_path(self, sample: VideoSample) -> Path:
        return self.mask_folder(sample)

    def build_index(self) -> None:
        """Read every PNG once (`veason.data.png_index`); without it `read_masks` reads those of a sample when asked."""
        if not self.has_ground_truth or self.index is not None:
            return
        objects: dict[str, set[str]] = {}
        frames: dict[str, tuple[str, ...]] = {}
        for sample in self.samples:
            if sample.object_ids:
                name = self._folder_name(sample)
                objects.setdefault(name, set()).update(sample.object_ids)
                if name not in frames:
                    frames[name] = self._shown_frames(sample) if self.sparse else sample.frames
        self.indexed_frames = frames
        folders = [MaskFolder(name, frames[name], tuple(sorted(ids))) for name, ids in objects.items() if frames[name]]
        if folders:
            self.index = PngIndex.open(self.folder / "Annotations", folders, self.object_mask, self.numbered)

    def _shown_frames(self, sample: VideoSample) -> tuple[str, ...]:
        """The frames that have a PNG; none for a missing folder, which `problems` names."""
        with contextlib.suppress(OSError):
            files = set(os.listdir(self.mask_folder(sample)))
            return tuple(frame for frame in sample.frames if f"{frame}.png" in files)
        return ()

    def _folder_name(self, sample: VideoSample) -> str:
        return os.path.relpath(self.mask_folder(sample), self.folder / "Annotations")

    def object_mask(self, values: np.ndarray, object_id: str) -> np.ndarray:
        """The object's pixels, bool [H, W], in a PNG's values."""
        return values == int(object_id)

    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        name = self._folder_name(sample)
        if self.index is not None and self.indexed_frames.get(name):
            indexed = [self.index.track(name, object_id) for object_id in sample.object_ids]
            if None not in indexed:
                by_frame = [dict(zip(self.indexed_frames[name], track)) for track in indexed if track is not None]
                return [[track.get(sample.frames[index]) for index in frame_indices] for track in by_frame]
        if self.sparse and not self.mask_folder(sample).is_dir():
            raise DataError(f"mask folder is missing: {self.mask_folder(sample)}")
        paths = [self.mask_path(sample, index) for index in frame_indices]
        values = [
            None if self.sparse and not path.is_file() else masks.read_mask(path, self.numbered) for path in paths
        ]
        return [
            [None if frame is None else masks.encode(self.object_mask(frame, object_id)) for frame in values]
            for object_id in sample.object_ids
        ]

    def ground_truth_problems(self, sample: VideoSample) -> list[str]:
        if not self.has_ground_truth:
            return []
        names = () if self.sparse else sample.frames
        return super().ground_truth_problems(sample) + self.missing_files(
            self.mask_folder(sample), names, ".png", "mask"
        )

    def mask_problems(self, sample: VideoSample) -> list[str]:
        return []  # reading every PNG takes as long as scoring

    def mask_size(self, sample: VideoSample) -> tuple[int, int] | None:
        folder = self.mask_folder(sample)
        return first_size(folder / f"{frame}.png" for frame in sample.frames) if self.has_ground_truth else None
