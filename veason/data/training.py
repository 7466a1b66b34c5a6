"""Training prompts made of a benchmark: which frames, which images, which truth. Pixels and masks are read where they
are used.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from veason import masks
from veason.data import BENCHMARKS, find_benchmark
from veason.data.base import Benchmark
from veason.data.examples import Example, GroundTruth
from veason.data.sample import VideoSample, gc_paused
from veason.errors import DataError
from veason.frames import open_frame, resize_frame, training_frames
from veason.prompts import Message, build_messages, load_template
from veason.resolve import check_arguments, resolve

T = TypeVar("T")
logger = logging.getLogger(__name__)

TRAINING_DATA = {
    **BENCHMARKS,
    "video_seg_keyframe_sft_base_mod": BENCHMARKS["revos"],  # the published name
    "cot": "veason.data.cot:CoTData",
}


class KeyframeTrainingData:
    """A benchmark as prompts for GRPO. An example is a function of (index, seed) alone: any worker builds the same.

    Args:
        root: the benchmark's folder, or an annotation file in it.
        sampled_frames: N of `training_frames`.
        keyframe_resize: side in pixels of the square frames and masks.
        meta_file: annotation file in the folder, or the name of a split; by default the benchmark's `training_source`.
        include_absent: also show expressions without a target (type 2), with a single [0, 0, 0, 0] box and empty masks
            in every frame.
        exclude: sample ids (`video/exp_id`, or `video` for all of a video) or a text file of them, as `veason.audit`
            writes it.
        prompt_template: see `veason.prompts.load_template`.
        on_bad_sample: "raise" ends the run at the first sample that cannot be used. "skip" leaves it out when that can
            be seen at load time, and gives the next good sample in its place later; either way it is counted and named
            in `skipped`.
        benchmark: a name of `veason.data.BENCHMARKS`, `package.module:Class`, or a class.
        box_side: side of the square that boxes are asked for in; None: pixels of the frames. The truth is always in
            pixels of the frames.

    Attributes:
        seeded: whether an example depends on its seed.
        skipped: sample id -> reason, of the samples left out so far in this process.

    Raises:
        DataError: at load time for what can be seen without reading pixels: a missing folder, file or frame, a split
            without public masks, and of a mask_dict.json an unknown anno_id, a list shorter than the video, masks of
            another size, a target without any mask.
    """

    seeded: ClassVar[bool] = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        sampled_frames: int = 6,
        keyframe_resize: int = 560,
        meta_file: str | None = None,
        include_absent: bool = False,
        exclude: str | os.PathLike[str] | Iterable[str] | None = None,
        prompt_template: str | None = None,
        on_bad_sample: str = "raise",
        benchmark: str | type[Benchmark] = "revos",
        box_side: int | None = None,
    ) -> None:
        if on_bad_sample not in ("raise", "skip"):
            raise DataError(f"data.on_bad_sample is {on_bad_sample!r}; it can be raise or skip")
        self.sampled_frames, self.size, self.on_bad_sample = sampled_frames, keyframe_resize, on_bad_sample
        self.template, self.box_side = load_template(prompt_template), box_side
        self.skipped: dict[str, str] = {}
        excluded = read_exclusions(exclude)
        with gc_paused():
            self.benchmark = open_training_split(benchmark, root, meta_file)
            validated = self.benchmark.validated_videos
            self.samples = [
                sample
                for sample in self.benchmark.samples
                if (include_absent or sample.type_id != 2)
                and sample.sample_id not in excluded
                and sample.video not in excluded
                and self._is_chosen(sample)
                and (sample.video in validated or self._usable(sample))
            ]
        if not self.samples:
            raise DataError(f"no sample to train on in {self.benchmark.meta_path}")
        if self.skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.skipped.items())[:3])
            logger.warning(
                "%d bad samples of %s left out (%s, ...)", len(self.skipped), self.benchmark.meta_path, reasons
            )

    def __len__(self) -> int:
        return len(self.samples)

    def sample_id(self, index: int) -> str:
        return self.samples[index].sample_id

    def messages_and_sizes(self, index: int, seed: int) -> tuple[list[Message], list[tuple[int, int]]]:
        """The messages of `example(index, seed)` and the (height, width) of its images, without reading frames: a
        sample whose frames cannot be read still has its own.
        """
        return self._first_good(index, seed, self._messages_and_sizes)

    def example(self, index: int, seed: int) -> Example:
        """Prompt, frames and truth of a sample; with `on_bad_sample="skip"` of the first good one from `index` on."""
        return self._first_good(index, seed, self._build)

    def _first_good(self, index: int, seed: int, build: Callable[[VideoSample, int, int], T]) -> T:
        count = len(self.samples)
        for candidate in range(index, index + count):
            sample = self.samples[candidate % count]
            try:
                return build(sample, candidate % count, seed)
            except DataError as error:
                if self.on_bad_sample == "raise":
                    raise
                self._skip(sample, str(error))
        raise DataError(
            f"none of the {count} samples of {self.benchmark.meta_path} can be used; the last: "
            f"{next(reversed(self.skipped.items()))}"
        )

    def _messages_and_sizes(
        self, sample: VideoSample, index: int, seed: int
    ) -> tuple[list[Message], list[tuple[int, int]]]:
        times = self._frames(sample, index, seed)
        return self._messages(sample, times), [(self.size, self.size)] * len(times)

    def _build(self, sample: VideoSample, index: int, seed: int) -> Example:
        times = self._frames(sample, index, seed)
        images = []
        for time in times:
            path = self.benchmark.frame_path(sample, time)
            try:
                frame = open_frame(path)
            except DataError as error:
                raise DataError(f"{sample.sample_id}: {error}") from error
            if (frame.height, frame.width) != (sample.height, sample.width):
                annotated = f"{sample.height}x{sample.width}"
                raise DataError(
                    f"{sample.sample_id}: frame {path} is {frame.height}x{frame.width}, the annotation says {annotated}"
                )
            images.append(resize_frame(frame, self.size))
        messages, truth = self._messages(sample, times), self._truth(sample, times)
        return Example(sample.sample_id, messages, images, truth, None, sample.expression, self.box_side)

    def _truth(self, sample: VideoSample, times: list[int]) -> GroundTruth:
        tracks = self.benchmark.checked_tracks(sample, times)
        boxes, unions = [], np.zeros((len(times), self.size, self.size), dtype=np.uint8)
        for position, frame in enumerate(zip(*tracks) if tracks else [()] * len(times)):
            extremes = [masks.box(rle) for rle in frame]
            if not any(extremes):  # one box stands for the whole frame
                extremes = [None]
            boxes.append([masks.scale_box(pixels, sample.height, sample.width, self.size) for pixels in extremes])
            union = self.benchmark.decode_union(sample, times[position], frame)
            if union is not None:
                unions[position] = masks.resize_nearest(union, self.size)
        return GroundTruth(times, boxes, unions)

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        areas = self.benchmark.areas(sample)
        if sample.type_id != 2 and not areas.any():
            raise DataError(f"{sample.sample_id}: no mask in any frame, in {self.benchmark.truth_path(sample)}")
        return training_frames(areas, self.sampled_frames, np.random.default_rng([seed, index]))

    def _messages(self, sample: VideoSample, times: list[int]) -> list[Message]:
        return build_messages(sample.expression, times, self.template, (self.size, self.size), self.box_side)

    def _is_chosen(self, sample: VideoSample) -> bool:
        """Whether a sample of the split belongs to this data; a subclass may leave some out."""
        return True

    def _usable(self, sample: VideoSample) -> bool:
        problems = self.benchmark.training_problems(sample)
        if problems and self.on_bad_sample == "raise":
            hint = (
                f"`python -m veason.audit {self.benchmark.root}` lists all, data.exclude or "
                "data.on_bad_sample=skip leaves them out"
            )
            raise DataError(f"{self.benchmark.meta_path}: {sample.sample_id}: {problems[0]}; {hint}")
        if problems:
            self.skipped[sample.sample_id] = problems[0]
        return not problems

    def _skip(self, sample: VideoSample, reason: str) -> None:
        if sample.sample_id not in self.skipped:
            self.skipped[sample.sample_id] = reason
            total = f"{len(self.skipped)} {'sample' if len(self.skipped) == 1 else 'samples'} skipped so far"
            logger.warning("bad sample %s is skipped (%s): %s", sample.sample_id, total, reason)


def read_exclusions(exclude: str | os.PathLike[str] | Iterable[str] | None) -> set[str]:
    """Sample ids and videos to leave out: from a list, or from a text file with one a line (# starts a comment)."""
    if exclude is None or exclude == "":
        return set()
    if not isinstance(exclude, (str, os.PathLike)):
        return {str(name) for name in exclude}
    path = Path(exclude)
    if not path.is_file():
        raise DataError(f"exclusion list is missing: {path}")
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def open_training_split(
    benchmark: str | type[Benchmark], root: str | os.PathLike[str], meta_file: str | None = None
) -> Benchmark:
    """A benchmark's split to train on.

    Args:
        benchmark: a name of `veason.data.BENCHMARKS`, `package.module:Class`, or a class.
        root: the benchmark's folder, or an annotation file in it.
        meta_file: annotation file in the folder, or the name of a split; by default the benchmark's `training_source`.

    Raises:
        DataError: the split has no public masks, or as the benchmark raises it.
    """
    cls, folder = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark, Path(root)
    split, preferred = cls.training_source(folder)
    if folder.is_file():
        folder, meta_file = folder.parent, folder.name
    elif meta_file is None:
        meta_file = preferred
        logger.info("training on %s", folder / (meta_file or cls.splits[split]))
    for name, file in cls.splits.items():
        if meta_file in (name, file):
            split, meta_file = name, None
            break
    opened = cls(folder, split, meta_file)
    if not opened.has_truth:
        raise DataError(f"{cls.name} {split} has no public masks to train on; choose another split by data.meta_file")
    return opened


def build_training_data(
    name: str = "revos",
    train_files: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    **section: Any,
) -> Any:
    """The training data of a config's `data` section.

    Args:
        name: `data.name`, a name of `TRAINING_DATA`, or `package.module:Class`: a benchmark, or a class of training
            data as `verl.protocol.TrainingData` describes it. The class is given `train_files`, the options, and those
            keys of the section that its signature names (the section also holds keys of the loader).
        train_files: `data.train_files`, the class's first argument.
        options: `data.options`.

    Raises:
        DataError: no root, an option that the class does not take, or as the class raises it.
    """
    if not train_files:
        raise DataError("data.train_files is not set: give the folder of the training data")
    build, options = resolve(name, TRAINING_DATA, "data.name"), options or {}
    if isinstance(build, type) and issubclass(build, Benchmark):
        build = partial(KeyframeTrainingData, benchmark=build)
    if not callable(build):
        raise DataError(f"data.name: {name} is no class of training data")
    accepted = list(inspect.signature(build).parameters)
    arguments = {key: value for key, value in section.items() if key in accepted} | dict(options)
    check_arguments(build, arguments, "data.options", given=(*accepted[:1], *getattr(build, "keywords", ())))
    return build(train_files, **arguments)
