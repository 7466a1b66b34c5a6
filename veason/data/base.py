"""What every benchmark gives: a list of samples, their frames, and their true masks where the split has them.

A new benchmark is a subclass with two methods, `read_samples` (the list) and `tracks` (the masks); `layouts.py` has
both for the common layouts. It gets a line in `BENCHMARKS`, or none at all when it is opened by its
`package.module:Class` path.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from veason import masks as rle_tools
from veason.errors import DataError
from veason.masks import Rle


class VideoSample(NamedTuple):  # cheap to make: a training set has tens of thousands
    """One expression about one video.

    Attributes:
        sample_id: `<video>/<exp_id>`, unique in its benchmark, named in every error.
        expression: as it stands in the annotation.
        frame_dir: the folder of the video's frames.
        frames: names of the frames without suffix, sorted; their position is their time.
        height, width: of the frames, in pixels.
        type_id: 0 referring, 1 reasoning, 2 the target is not in the video; None where the benchmark does not tell.
        object_ids: annotation ids of the targets; () when they are absent or not told.
    """

    sample_id: str
    video: str
    exp_id: str
    expression: str
    frame_dir: Path
    frames: tuple[str, ...]
    height: int
    width: int
    type_id: int | None = None
    object_ids: tuple[str, ...] = ()

    @property
    def result_dir(self) -> str:
        """Folder of this sample's PNGs below the output folder."""
        return f"Annotations/{self.sample_id}"

    @property
    def num_objects(self) -> int:
        return len(self.object_ids)


MISSING = "annotation file is missing: "  # begins the message that names a file


class Benchmark(ABC):
    """The samples of one split. Subclasses set the class attributes and give `read_samples`, and `tracks` where there
    is truth.

    Args:
        root: the data set's folder.
        split: one of `splits`; the first by default.
        meta_file: an annotation file in the folder, instead of the split's own.

    Raises:
        DataError: a folder or an annotation file is missing, or an annotation does not have the expected form.
    """

    name: ClassVar[str] = ""
    splits: ClassVar[dict[str, str]] = {}  # split -> annotation file below the root
    suffix: ClassVar[str] = ".jpg"
    lists_every_frame: ClassVar[bool] = True  # whether a sample names all pictures of its folder

    def __init__(self, root: str | os.PathLike[str], split: str | None = None, meta_file: str | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{self.name}: data folder is missing: {self.root}")
        self.split = split or next(iter(self.splits))
        if self.split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        self.meta_path = self.root / (meta_file or self.splits[self.split])
        self._frame_problems: dict[str, list[str]] = {}
        with paused_collection():
            self.samples: Sequence[VideoSample] = list(self.read_samples())
        if not self.samples:
            raise DataError(f"{self.name}: no expression in {self.meta_path}")

    @property
    def has_truth(self) -> bool:
        """Whether the true masks of this split are at hand."""
        return True

    @property
    def lacks(self) -> str | None:
        """What of the benchmark's figures cannot be computed because a file is not at hand, and which; None when
        nothing.
        """
        return None

    @abstractmethod
    def read_samples(self) -> Iterator[VideoSample]:
        """The split's samples, in the annotation's order."""

    @abstractmethod
    def tracks(self, sample: VideoSample, frame_indices: Sequence[int]) -> list[list[Rle | None]]:
        """For each target object, its mask in each of the frames; [] for an absent target. Those of one frame can be
        merged.
        """

    def truth_path(self, sample: VideoSample) -> Path:
        """The file or folder that holds a sample's masks, to be named in errors."""
        return self.meta_path

    def frame_path(self, sample: VideoSample, index: int) -> Path:
        """The file of the frame at a position in `sample.frames`."""
        return sample.frame_dir / (sample.frames[index] + self.suffix)

    def masks(self, sample: VideoSample, frame_indices: Sequence[int] | None = None) -> np.ndarray:
        """True masks, uint8 [objects, T, H, W], of all frames or of some.

        Raises:
            DataError: the split has no truth, or the sample's masks do not fit it (names the sample).
        """
        tracks = self.checked_tracks(sample, frame_indices)
        total = len(sample.frames) if frame_indices is None else len(frame_indices)
        out = np.zeros((len(tracks), total, sample.height, sample.width), dtype=np.uint8)
        for number, track in enumerate(tracks):
            for position, rle in enumerate(track):
                mask = self.decode_union(sample, position if frame_indices is None else frame_indices[position], [rle])
                if mask is not None:
                    out[number, position] = mask
        return out

    def decode_union(self, sample: VideoSample, index: int, rles: Iterable[Rle | None]) -> np.ndarray | None:
        """The pixels of any of the masks of one frame, uint8 [H, W], None when there is no mask; errors name sample,
        frame and file.
        """
        try:
            present = [rle for rle in rles if rle is not None]
            for rle in present:
                rle_tools.check(rle)
            joined = rle_tools.union(present)
            return None if joined is None else rle_tools.decode(joined)
        except DataError as error:
            raise DataError(
                f"{sample.sample_id}, frame {sample.frames[index]}: {error}, in {self.truth_path(sample)}"
            ) from error

    def areas(self, sample: VideoSample) -> np.ndarray:
        """Area in pixels of the union of the targets in every frame, float64 [T]; nothing is decoded.

        Raises:
            DataError: as `masks`.
        """
        tracks = self.checked_tracks(sample)
        return np.array(
            [rle_tools.area(rle_tools.union(frame)) for frame in zip(*tracks)] or [0] * len(sample.frames),
            dtype=np.float64,
        )

    def foreground(self, sample: VideoSample) -> np.ndarray | None:
        """Every object of the video, uint8 [T, H, W], for the robustness metric; None where the benchmark has none."""
        return None

    def checked_tracks(self, sample: VideoSample, frame_indices: Sequence[int] | None = None) -> list[list[Rle | None]]:
        """`tracks` of all frames or of some, each mask of the sample's size; errors name the sample."""
        if not self.has_truth:
            raise DataError(f"{self.name} {self.split} has no public truth (asked for {sample.sample_id})")
        indices = range(len(sample.frames)) if frame_indices is None else frame_indices
        try:
            tracks = self.tracks(sample, indices)
        except DataError as error:
            raise DataError(f"{self.name} {sample.sample_id}: {error}") from error
        for rle in (rle for track in tracks for rle in track if rle is not None):
            if tuple(rle["size"]) != (sample.height, sample.width):
                size = "x".join(map(str, rle["size"]))
                raise DataError(
                    f"{self.name} {sample.sample_id}: mask of {size} pixels, frames of {sample.height}x{sample.width}"
                )
        return tracks

    def problems(self, sample: VideoSample) -> list[str]:
        """What is wrong with a sample as far as it can be seen without reading pixels or masks; [] when nothing is."""
        if sample.video not in self._frame_problems:
            self._frame_problems[sample.video] = missing_files(sample.frame_dir, sample.frames, self.suffix, "frame")
        return list(self._frame_problems[sample.video])

    def verify(self) -> None:
        """Raise a DataError that names the first sample with a problem, and how many there are."""
        found = [(sample, problems) for sample in self.samples if (problems := self.problems(sample))]
        if found:
            sample, problems = found[0]
            more = (
                f" ({len(found) - 1} more; `python -m veason.audit {self.root}` lists them)" if len(found) > 1 else ""
            )
            raise DataError(f"{self.name} {sample.sample_id}: {problems[0]}{more}")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError when it is missing or broken."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataError(f"{MISSING}{path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"annotation file is not JSON: {path} ({error})") from error


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """No garbage collection inside: making tens of thousands of objects that all stay would set it off again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def missing_files(folder: Path, names: Iterable[str], suffix: str, what: str) -> list[str]:
    """One line about the files of `names` that a folder lacks, or none: [] or ["frame is missing: a/00004.jpg (and 2
    more)"].
    """
    try:
        present = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return [f"{what} folder is missing: {folder}"]
    wanted = [name + suffix for name in names]
    if present.issuperset(wanted):
        return []
    missing = [name for name in wanted if name not in present]
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return [f"{what} is missing: {folder / missing[0]}{more}"]
