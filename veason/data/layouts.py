"""Layouts that benchmarks share: one annotation file of expressions, and truth as a mask_dict.json or as PNGs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from veason import masks
from veason.data.base import Benchmark, UnknownObjectError
from veason.data.mask_index import MaskIndex
from veason.data.sample import VideoSample, read_json
from veason.errors import DataError
from veason.frames import frame_size
from veason.masks import Rle


class ExpressionsBenchmark(Benchmark):
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

    def targets(
        self, video: str, meta: dict[str, Any], expression: dict[str, Any]
    ) -> tuple[int | None, tuple[str, ...]]:
        """The `type_id` and `object_ids` of an expression, as far as the annotation gives them."""
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
            if not meta.get("frames") or "expressions" not in meta:
                raise DataError(f"{where} has no frames or no expressions")
            frames, folder = tuple(sorted(meta["frames"])), self.frame_folder(video)
            if "height" in meta and "width" in meta:
                height, width = int(meta["height"]), int(meta["width"])
            else:
                height, width = _first_size(folder / (frame + self.suffix) for frame in frames)
            for exp_id, expression in _pairs(meta["expressions"]):
                try:
                    text, (type_id, object_ids) = expression[self.text_key], self.targets(video, meta, expression)
                except (KeyError, TypeError) as error:
                    raise DataError(f"{where}, expression {exp_id} has no {error}") from error
                sample_id = f"{self.sample_prefix(video, object_ids)}/{exp_id}"
                kind = self.category(expression)
                yield VideoSample(
                    sample_id, video, exp_id, text, folder, frames, height, width, type_id, object_ids, kind
                )

    def read_videos(self) -> dict[str, dict[str, Any]]:
        """The annotation file's videos. A subclass may leave some out."""
        content = read_json(self.meta_path)
        if not isinstance(content, dict) or not isinstance(content.get("videos"), dict):
            raise DataError(f'annotation file has no "videos": {self.meta_path}')
        return content["videos"]


def _first_size(paths: Iterable[Path]) -> tuple[int, int]:
    """Height and width of the first frame that can be read; 0 x 0 where none can: `problems` then tells why."""
    for path in paths:
        with contextlib.suppress(DataError):
            return frame_size(path)
    return 0, 0


class MaskDictBenchmark(ExpressionsBenchmark):
    """Truth as mask_dict.json beside the annotation file: {anno_id: one RLE or null per frame of the video}."""

    @cached_property
    def index(self) -> MaskIndex:
        return MaskIndex.open(self.folder / "mask_dict.json")

    def truth_path(self, sample: VideoSample) -> Path:
        return self.index.source

    def prepare(self) -> None:
        if self.has_truth:
            len(self.index)

    @cached_property
    def validated_videos(self) -> set[str]:
        """Videos with all their frames, whose objects all have masks that fit; checked once for all expressions."""
        if not self.has_truth:
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
        frame_problems = super().problems
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

    def targets(
        self, video: str, meta: dict[str, Any], expression: dict[str, Any]
    ) -> tuple[int | None, tuple[str, ...]]:
        type_id = expression.get("type_id")
        return type_id, () if type_id == 2 or not self.has_truth else tuple(map(str, expression["anno_id"]))

    def listed_track(self, sample: VideoSample, object_id: str) -> list[Rle | None]:
        if object_id not in self.index:
            raise UnknownObjectError(f"{self.index.source} has no masks for id {object_id!r}")
        return self.index[object_id]

    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        tracks = []
        for anno_id in sample.object_ids:
            track = self.index[anno_id]
            if len(track) < len(sample.frames):
                raise DataError(self._too_short(anno_id, len(track), sample))
            if damage := self.index.summaries[anno_id].damage:
                raise DataError(self._damaged(anno_id, damage))
            tracks.append([track[index] for index in frame_indices])
        return tracks

    def problems(self, sample: VideoSample) -> list[str]:
        if sample.video in self.validated_videos:
            return []
        found = super().problems(sample)
        for anno_id in sample.object_ids:
            found += self._misfits(anno_id, sample)
        return found

    def training_problems(self, sample: VideoSample) -> list[str]:
        """`problems`, and that a target has no pixel in any frame, from which nothing can be learned."""
        if sample.video in self.validated_videos:
            return []
        found, summaries = self.problems(sample), self.index.summaries
        if found or sample.type_id == 2 or any(summaries[anno_id].present for anno_id in sample.object_ids):
            return found
        return [f"{self.index.source}: no mask in any frame (ids {', '.join(sample.object_ids) or 'none'})"]

    def _misfits(self, anno_id: str, sample: VideoSample) -> list[str]:
        """What is wrong with an object's masks, as far as the index has it, without reading them."""
        track = self.index.summaries.get(anno_id)
        if track is None:
            return [f"{self.index.source} has no masks for id {anno_id!r}"]
        wrong = [self._too_short(anno_id, track.frames, sample)] if track.frames < len(sample.frames) else []
        if track.size not in (None, (sample.height, sample.width)):
            size = "several sizes" if track.size == (0, 0) else "{}x{}".format(*track.size)
            wrong.append(
                f"{self.index.source}: masks of id {anno_id!r} are of {size}, the frames of "
                f"{sample.height}x{sample.width}"
            )
        return wrong + ([self._damaged(anno_id, track.damage)] if track.damage else [])

    def _damaged(self, anno_id: str, damage: str) -> str:
        return f"{self.index.source}: id {anno_id!r}, {damage}"

    def _too_short(self, anno_id: str, length: int, sample: VideoSample) -> str:
        return f"{self.index.source}: id {anno_id!r} has {length} masks, the video has {len(sample.frames)} frames"


class PngBenchmark(ExpressionsBenchmark):
    """Truth as one PNG a frame, whose values are object numbers: `object_ids` holds the number."""

    sparse: ClassVar[bool] = False  # whether a frame without a PNG is one without the object; otherwise it is missing

    def mask_folder(self, sample: VideoSample) -> Path:
        return self.folder / "Annotations" / sample.video

    def mask_path(self, sample: VideoSample, index: int) -> Path:
        """The PNG of the frame at a position in `sample.frames`."""
        return self.mask_folder(sample) / f"{sample.frames[index]}.png"

    def truth_path(self, sample: VideoSample) -> Path:
        return self.mask_folder(sample)

    def object_mask(self, values: np.ndarray, object_id: str) -> np.ndarray:
        """The object's pixels, bool [H, W], in a PNG's values."""
        return values == int(object_id)

    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        if self.sparse and not self.mask_folder(sample).is_dir():
            raise DataError(f"mask folder is missing: {self.mask_folder(sample)}")
        paths = [self.mask_path(sample, index) for index in frame_indices]
        values = [None if self.sparse and not path.is_file() else masks.read_mask(path) for path in paths]
        return [
            [None if frame is None else masks.encode(self.object_mask(frame, object_id)) for frame in values]
            for object_id in sample.object_ids
        ]

    def problems(self, sample: VideoSample) -> list[str]:
        found = super().problems(sample)
        if not self.has_truth:
            return found
        names = () if self.sparse else sample.frames
        return found + self.missing_files(self.mask_folder(sample), names, ".png", "mask")


def _pairs(expressions: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    """(exp_id, expression) of one video, whether its expressions are an object or a list."""
    if isinstance(expressions, dict):
        return expressions.items()
    return [(str(expression.get("exp_id", number)), expression) for number, expression in enumerate(expressions)]
