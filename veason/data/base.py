"""The interface of data sets: a benchmark is its samples, their frames and masks, and how its results are reported.

A benchmark of your own is a subclass with two methods, `read_samples` and `read_masks`; `layouts.py` has both for the
common layouts. As `package.module:Class` it can be trained on (`data.name`), audited, given to the teacher, and
evaluated (`benchmark=`); a line in `BENCHMARKS` gives it a short name.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from veason import masks as rle_tools
from veason.data.annotation import Rejection, checked_samples
from veason.data.sample import VideoSample, gc_paused, missing_files
from veason.errors import DataError, printable
from veason.masks import Rle
from veason.metrics.scores import Column, PaperRows, SampleScore, j_and_f

if TYPE_CHECKING:
    from veason.data.mask_scores import ReadPrediction

__all__ = ["UnknownObjectError", "VideoBenchmark", "VideoSample"]


class UnknownObjectError(DataError):
    """A benchmark has no masks for an object id."""


class VideoBenchmark(ABC):
    """The samples of one split. Subclasses set class attributes and define `read_samples`, and `read_masks` where there
    is ground truth.

    Args:
        root: the data set's folder.
        split: one of `splits`; the first by default.
        meta_file: an annotation file in the folder, instead of the split's own.

    Attributes:
        samples: those that can be used, as far as the annotation tells.
        rejected: entries of the annotation that cannot be used, also a video whose own annotation file is missing. Who
            uses the benchmark decides: training raises or skips them, evaluation refuses or leaves them out, the audit
            lists them.

    Raises:
        DataError: a folder or an annotation file is missing, or the file as a whole does not have the expected form.
    """

    name: ClassVar[str] = ""
    splits: ClassVar[dict[str, str]] = {}  # split -> annotation file below the root
    suffix: ClassVar[str] = ".jpg"
    masks_validated: ClassVar[bool] = False  # whether `read_masks` gives no damaged mask (`veason.masks.find_damage`)
    lists_every_frame: ClassVar[bool] = True  # whether a sample names all pictures of its folder
    file_patterns: ClassVar[tuple[str, ...]] = ()  # below the root; any of them identifies this benchmark

    # How its results are reported.
    columns: ClassVar[tuple[Column, ...]] = j_and_f()
    paper: ClassVar[Mapping[str, PaperRows]] = {}  # split -> rows of published tables
    note: ClassVar[str] = ""  # below the table: where its rows are from
    extra_metrics_first: ClassVar[bool] = False  # `extra_metrics` are the benchmark's own, and stand before the columns
    # split -> ("videos" or "expressions", how many the whole official split has at least)
    official_size: ClassVar[Mapping[str, tuple[str, int]]] = {}
    missing_hint: ClassVar[str] = ""  # after the error about missing files
    archive_prefix: ClassVar[str | None] = None  # before <video>/<exp_id>/<frame>.png in the archive for a server

    def __init__(self, root: str | os.PathLike[str], split: str | None = None, meta_file: str | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{self.name}: data folder is missing: {self.root}")
        self.split = split or next(iter(self.splits))
        if self.split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        self.meta_path = self.root / (meta_file or self.split_file(self.root, self.split))
        self._missing_files: dict[Path, list[str]] = {}
        self._areas: dict[str, np.ndarray] = {}
        self.rejected: list[Rejection] = []
        with gc_paused():
            self.samples: Sequence[VideoSample] = checked_samples(self.read_samples(), self.meta_path, self.reject)
        if not self.samples:
            reason = self.rejected[0].reason if self.rejected else f"no expression in {self.meta_path}"
            raise DataError(f"{self.name}: {reason}")

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Whether a folder holds this benchmark, by its files."""
        return any(next(root.glob(pattern), None) is not None for pattern in cls.file_patterns)

    @classmethod
    def split_file(cls, root: Path, split: str) -> str:  # noqa: ARG003
        """The annotation file of a split below the root, where a data set comes with more than one name for it."""
        return cls.splits[split]

    @classmethod
    def training_source(cls, root: Path) -> tuple[str, str | None]:  # noqa: ARG003
        """The split to train on, and an annotation file of it that is preferred to the split's own."""
        return "train" if "train" in cls.splits else next(iter(cls.splits)), None

    def training_hint(self) -> str | None:
        """What is missing for the usual training split, with the command that makes it; None when nothing is."""
        return None

    @property
    def has_ground_truth(self) -> bool:
        """Whether the ground-truth masks of this split are at hand."""
        return True

    @property
    def missing_metrics(self) -> str | None:
        """Which metrics cannot be computed because a file is not at hand; None when all can."""
        return None

    # -- samples and masks --------------------------------------------------------------------------------------------

    @abstractmethod
    def read_samples(self) -> Iterator[VideoSample]:
        """The split's samples, in the annotation's order. An entry that cannot be read is given to `reject`."""

    def reject(self, name: str, video: str, reason: str) -> None:
        """Leave out an entry of the annotation; see `Rejection`."""
        self.rejected.append(Rejection(printable(name) or "''", printable(video), printable(reason)))

    @abstractmethod
    def read_masks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        """Per target object its mask in each of the frames; [] for an absent target. A frame's masks have one size."""

    def annotated_masks(self, sample: VideoSample, object_id: str) -> list[Rle | None]:
        """All masks that the annotation lists for an object, which may be more or fewer than the video's frames.

        Raises:
            UnknownObjectError: it lists none.
            DataError: they cannot be read.
        """
        track = self.read_masks(sample._replace(object_ids=(object_id,)), range(len(sample.frames)))[0]
        return [rle_tools.as_rle(mask) for mask in track]

    def foreground(self, sample: VideoSample) -> np.ndarray | None:
        """Every object of the video, uint8 [T, H, W], for the robustness metric; None where the benchmark has none."""
        return None

    def ground_truth_path(self, sample: VideoSample) -> Path:
        """The file or folder that holds a sample's masks, to be named in errors."""
        return self.meta_path

    def frame_path(self, sample: VideoSample, index: int) -> Path:
        """The file of the frame at a position in `sample.frames`."""
        return sample.frame_dir / (sample.frames[index] + self.suffix)

    def checked_masks(self, sample: VideoSample, frame_indices: Sequence[int] | None = None) -> list[list[Rle | None]]:
        """`read_masks` of all frames or of some, each mask of the sample's size; errors name the sample."""
        if not self.has_ground_truth:
            raise DataError(f"{self.name} {self.split} has no public ground truth (asked for {sample.sample_id})")
        indices = range(len(sample.frames)) if frame_indices is None else frame_indices
        try:
            tracks = self.read_masks(sample, indices)
            if not self.masks_validated:
                tracks = [self._whole(sample, track, indices) for track in tracks]
        except DataError as error:
            raise DataError(f"{self.name} {sample.sample_id}: {error}") from error
        for rle in (rle for track in tracks for rle in track if rle is not None):
            if tuple(rle["size"]) != (sample.height, sample.width):
                size = "x".join(map(str, rle["size"]))
                raise DataError(
                    f"{self.name} {sample.sample_id}: mask of {size} pixels, frames of {sample.height}x{sample.width}"
                )
        return tracks

    def _whole(self, sample: VideoSample, track: Sequence[Rle | None], indices: Sequence[int]) -> list[Rle | None]:
        """An object's masks in compressed form. Raises DataError when one is damaged."""
        rles = [rle_tools.as_rle(rle) for rle in track]
        if found := rle_tools.find_damage(rles):
            frame = sample.frames[indices[found[0]]]
            raise DataError(f"{self.ground_truth_path(sample)}, frame {frame}: {found[1]}")
        return rles

    def masks(self, sample: VideoSample, frame_indices: Sequence[int] | None = None) -> np.ndarray:
        """Ground-truth masks, uint8 [objects, T, H, W], of all frames or of some.

        Raises:
            DataError: the split has no ground truth, or the sample's masks do not fit it (names the sample).
        """
        tracks = self.checked_masks(sample, frame_indices)
        indices = range(len(sample.frames)) if frame_indices is None else frame_indices
        out = np.zeros((len(tracks), len(indices), sample.height, sample.width), dtype=np.uint8)
        for number, track in enumerate(tracks):
            for position, rle in enumerate(track):
                mask = self.decode_union(sample, indices[position], [rle])
                if mask is not None:
                    out[number, position] = mask
        return out

    def decode_union(self, sample: VideoSample, index: int, rles: Iterable[Rle | None]) -> np.ndarray | None:
        """The union of one frame's masks, uint8 [H, W]; None when there is none.

        Raises:
            DataError: a mask is damaged (names sample, frame and file).
        """
        try:
            present = [rle for rle in rles if rle is not None]
            for rle in present:
                rle_tools.check(rle)
            joined = rle_tools.union(present)
            return None if joined is None else rle_tools.decode(joined)
        except DataError as error:
            where = f"{sample.sample_id}, frame {sample.frames[index]}"
            raise DataError(f"{where}: {error}, in {self.ground_truth_path(sample)}") from error

    def areas(self, sample: VideoSample) -> np.ndarray:
        """Area in pixels of the union of the targets in every frame, float64 [T]; read once, kept as int32.

        Raises:
            DataError: as `masks`.
        """
        if sample.sample_id not in self._areas:
            frames = zip(*self.checked_masks(sample))
            areas = [rle_tools.area(rle_tools.union(frame)) for frame in frames] or [0] * len(sample.frames)
            self._areas[sample.sample_id] = np.array(areas, dtype=np.int32)
        return self._areas[sample.sample_id].astype(np.float64)

    # -- what is wrong ------------------------------------------------------------------------------------------------

    def problems(self, sample: VideoSample) -> list[str]:
        """What is wrong with a sample as far as it can be seen without reading pixels or masks; [] when nothing is."""
        return self.frame_problems(sample) + self.ground_truth_problems(sample)

    def frame_problems(self, sample: VideoSample) -> list[str]:
        """Those of `problems` that concern the frames, which scoring does not need."""
        return self.missing_files(sample.frame_dir, sample.frames, self.suffix, "frame")

    def ground_truth_problems(self, sample: VideoSample) -> list[str]:
        """Those of `problems` that concern the masks."""
        if (
            self.has_ground_truth and sample.type_id != 2 and not sample.object_ids
        ):  # it would be scored as an absent target
            return [f"{self.meta_path}: no object is named"]
        return []

    def mask_problems(self, sample: VideoSample) -> list[str]:
        """What is wrong with a sample's masks once they are read. A layout whose `ground_truth_problems` tell has
        none.
        """
        try:
            self.checked_masks(sample)
        except DataError as error:
            return [str(error).removeprefix(f"{self.name} {sample.sample_id}: ")]
        return []

    @property
    def validated_videos(self) -> set[str]:
        """Videos whose samples have no `training_problems`, where one look can tell for all their expressions."""
        return set()

    def training_problems(self, sample: VideoSample) -> list[str]:
        """`problems`, and what else keeps a sample from being trained on."""
        return self.problems(sample)

    def missing_files(self, folder: Path, names: Iterable[str], suffix: str, what: str) -> list[str]:
        """`missing_files`, each folder listed once."""
        if folder not in self._missing_files:
            self._missing_files[folder] = missing_files(folder, names, suffix, what)
        return list(self._missing_files[folder])

    def scoring_problems(self, sample: VideoSample) -> list[str]:
        """What is wrong with files that only scoring reads, beside the masks."""
        return []

    def build_index(self) -> None:  # noqa: B027
        """Build what processes that open this benchmark share, such as an index beside the data."""

    # -- scoring and reporting ----------------------------------------------------------------------------------------

    def score_video(self, samples: Sequence[VideoSample], read: ReadPrediction) -> list[SampleScore]:
        """Scores of the samples of one video, in their order. A protocol of its own overrides this."""
        foreground = self.foreground(samples[0])
        return [self.score_sample(sample, *read(sample), foreground) for sample in samples]

    def score_sample(
        self, sample: VideoSample, pred: np.ndarray, present: np.ndarray, foreground: np.ndarray | None
    ) -> SampleScore:
        """Scores of one sample; arguments as of `veason.data.mask_scores.score_masks`."""
        from veason.data.mask_scores import score_masks  # here: training needs no OpenCV

        return score_masks(sample, pred, present, self.masks(sample), foreground)

    @classmethod
    def extra_metrics(cls, scores: Sequence[SampleScore]) -> dict[str, float]:  # noqa: ARG003
        """Metrics that are no mean over samples, in percent, by column title."""
        return {}

    @classmethod
    def paper_rows(cls, split: str | None) -> PaperRows:
        """The paper's rows for a split, the main one when None."""
        return cls.paper.get(split or next(iter(cls.splits)), ())
