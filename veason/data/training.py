"""Training prompts made of a benchmark: which frames, which images, which ground truth. Pixels and masks are read where
they are used.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np

from veason import masks
from veason.data import BENCHMARKS
from veason.data.annotation import Rejection
from veason.data.base import VideoBenchmark
from veason.data.examples import GroundTruth, TrainingExample
from veason.data.mixture import build_mixture
from veason.data.sample import VideoSample, gc_paused
from veason.data.selection import read_exclusions
from veason.data.training_split import open_training_split, startup_messages
from veason.errors import DataError
from veason.frames import ANCHOR_FRAMES, TIMESTAMP_MODES, open_frame, resize_frame, shown_timestamps, training_frames
from veason.prompts import Message, build_messages, load_template
from veason.registry import check_arguments, load_by_name

T = TypeVar("T")
logger = logging.getLogger(__name__)

TRAINING_DATA = {
    **BENCHMARKS,
    "video_seg_keyframe_sft_base_mod": BENCHMARKS["revos"],  # the published names
    "video_seg_keyframe_sft_base_mod_subset": "veason.data.revos:ReVOSSubset",
    "cot": "veason.data.cot:CoTData",
}


class KeyframeTrainingData:
    """A benchmark as prompts for GRPO. An example is a function of (index, seed) alone: any worker builds the same.

    Args:
        root: the benchmark's folder, or an annotation file in it.
        sampled_frames: N of `training_frames`, which shows at most N - 1 frames; the reward scores the same ones.
        keyframe_resize: side in pixels of the square that every frame and mask is resized to.
        meta_file: annotation file in the folder, or the name of a split; by default the benchmark's `training_source`.
        include_no_target: also show expressions without a target (type 2): one [0, 0, 0, 0] box, empty masks.
        exclude: sample ids (`video/exp_id`, or `video` for all of a video) or a file of them, as `veason audit` writes.
        prompt_template: see `veason.prompts.load_template`.
        on_bad_sample: "raise" ends the run at the first sample that cannot be used. "skip" leaves it out when that can
            be seen at load time, and gives the next good sample in its place later; either way it is counted and named
            in `skipped_samples`.
        benchmark: a name of `veason.data.BENCHMARKS`, `package.module:Class`, or a class.
        timestamp_mode, anchor_frame, reasoning: the paper's ablations: what is shown as a frame's timestamp, the frame
        that is
            always shown (see `veason.frames`), and whether the default prompt asks for reasoning.
        coordinate_range: coordinates are asked for from 0 to this; None: pixels of the frames, as the ground truth.

    Attributes:
        depends_on_seed: whether an example depends on its seed.
        skipped_samples: sample id -> reason, of the samples left out so far in this process.
        startup_messages: lines that are printed before the run begins.

    Raises:
        DataError: at load time for what can be seen without reading pixels: a missing folder, file or frame, a split
            without public masks, and of a mask_dict.json an unknown anno_id, a list shorter than the video, masks of
            another size, a target without any mask.
    """

    depends_on_seed: ClassVar[bool] = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        sampled_frames: int = 6,
        keyframe_resize: int = 560,
        meta_file: str | None = None,
        include_no_target: bool = False,
        exclude: str | os.PathLike[str] | Iterable[str] | None = None,
        prompt_template: str | None = None,
        on_bad_sample: str = "raise",
        benchmark: str | type[VideoBenchmark] = "revos",
        timestamp_mode: str = TIMESTAMP_MODES[0],
        anchor_frame: str = ANCHOR_FRAMES[0],
        reasoning: bool = True,
        coordinate_range: int | None = None,
    ) -> None:
        choices = {"on_bad_sample": ("raise", "skip"), "timestamp_mode": TIMESTAMP_MODES, "anchor_frame": ANCHOR_FRAMES}
        for key, given in (
            ("on_bad_sample", on_bad_sample),
            ("timestamp_mode", timestamp_mode),
            ("anchor_frame", anchor_frame),
        ):
            if given not in choices[key]:
                raise DataError(f"data.{key} is {given!r}; it can be {' or '.join(choices[key])}")
        self.sampled_frames, self.size, self.on_bad_sample = sampled_frames, keyframe_resize, on_bad_sample
        self.template = load_template(prompt_template, reasoning)
        self.timestamp_mode, self.anchor_frame, self.reasoning = timestamp_mode, anchor_frame, reasoning
        self.coordinate_range = coordinate_range
        self.skipped_samples: dict[str, str] = {}
        excluded = read_exclusions(exclude)
        with gc_paused():
            self.benchmark = open_training_split(benchmark, root, meta_file)
            self.startup_messages = startup_messages(self.benchmark)
            for entry in self._rejected():
                if not {entry.name, entry.video} & excluded:
                    self._refuse(entry.name, entry.reason)
            self.benchmark.build_index()  # the frames of a sample are chosen by the areas of all its masks
            validated = self.benchmark.validated_videos
            self.samples = [
                sample
                for sample in self.benchmark.samples
                if (include_no_target or sample.type_id != 2)
                and sample.sample_id not in excluded
                and sample.video not in excluded
                and self._is_selected(sample)
                and (sample.video in validated or self._usable(sample))
            ]
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.skipped_samples.items())[:3])
        if not self.samples:
            bad = f"; {len(self.skipped_samples)} bad samples are left out ({reasons})" if self.skipped_samples else ""
            raise DataError(f"no sample to train on in {self.benchmark.meta_path}{bad}")
        if self.skipped_samples:
            logger.warning(
                "%d bad samples of %s left out (%s, ...)", len(self.skipped_samples), self.benchmark.meta_path, reasons
            )

    def __len__(self) -> int:
        return len(self.samples)

    def sample_id(self, index: int) -> str:
        return self.samples[index].sample_id

    def messages_and_sizes(self, index: int, seed: int) -> tuple[list[Message], list[tuple[int, int]]]:
        """The messages of `example(index, seed)` and the (height, width) of its images, without reading frames: a
        sample whose frames cannot be read still has its own.
        """
        return self._first_valid(index, seed, self._messages_and_sizes)

    def example(self, index: int, seed: int) -> TrainingExample:
        """Prompt, frames and ground truth of a sample; with `on_bad_sample="skip"` of the first good one from `index`
        on.
        """
        return self._first_valid(index, seed, self._build)

    def _first_valid(self, index: int, seed: int, build: Callable[[VideoSample, int, int], T]) -> T:
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
            f"{next(reversed(self.skipped_samples.items()))}"
        )

    def _messages_and_sizes(
        self, sample: VideoSample, index: int, seed: int
    ) -> tuple[list[Message], list[tuple[int, int]]]:
        indices = self._frames(sample, index, seed)
        return self._messages(sample, indices), [(self.size, self.size)] * len(indices)

    def _build(self, sample: VideoSample, index: int, seed: int) -> TrainingExample:
        indices = self._frames(sample, index, seed)
        images = []
        for number in indices:
            try:
                frame = open_frame(self.benchmark.frame_path(sample, number), (sample.height, sample.width))
            except DataError as error:
                raise DataError(f"{sample.sample_id}: {error}") from error
            images.append(resize_frame(frame, self.size))
        messages, ground_truth = self._messages(sample, indices), self._ground_truth(sample, indices)
        return TrainingExample(
            sample.sample_id, messages, images, ground_truth, None, sample.expression, self.coordinate_range
        )

    def _ground_truth(self, sample: VideoSample, indices: list[int]) -> GroundTruth:
        tracks = self.benchmark.checked_masks(sample, indices)
        boxes, unions = [], np.zeros((len(indices), self.size, self.size), dtype=np.uint8)
        for position, frame in enumerate(zip(*tracks) if tracks else [()] * len(indices)):
            extremes = [masks.box(rle) for rle in frame]
            if not any(extremes):  # one box stands for the whole frame
                extremes = [None]
            boxes.append([masks.scale_box(pixels, sample.height, sample.width, self.size) for pixels in extremes])
            union = self.benchmark.decode_union(sample, indices[position], frame)
            if union is not None:
                unions[position] = masks.resize_nearest(union, self.size)
        return GroundTruth(shown_timestamps(indices, self.timestamp_mode), boxes, unions)

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        areas = self.benchmark.areas(sample)
        if sample.type_id != 2 and not areas.any():
            raise DataError(f"{sample.sample_id}: no mask in any frame, in {self.benchmark.ground_truth_path(sample)}")
        return training_frames(areas, self.sampled_frames, np.random.default_rng([seed, index]), self.anchor_frame)

    def _messages(self, sample: VideoSample, indices: list[int]) -> list[Message]:
        shown = shown_timestamps(indices, self.timestamp_mode)
        return build_messages(sample.expression, shown, self.template, (self.size, self.size), self.coordinate_range)

    def _is_selected(self, sample: VideoSample) -> bool:
        """Whether a sample of the split belongs to this data; a subclass may leave some out."""
        return True

    def _rejected(self) -> list[Rejection]:
        """Entries of the annotation that cannot be used, as far as they belong to this data."""
        return self.benchmark.rejected

    def _usable(self, sample: VideoSample) -> bool:
        problems = self.benchmark.training_problems(sample)
        if problems:
            self._refuse(sample.sample_id, problems[0])
        return not problems

    def _refuse(self, name: str, reason: str) -> None:
        """Note a bad sample that is found at load time, or raise."""
        if self.on_bad_sample == "skip":
            self.skipped_samples[name] = reason
            return
        hint = (
            f"`veason audit {self.benchmark.root}` lists all, data.exclude or data.on_bad_sample=skip leaves them out"
        )
        where = f"{self.benchmark.meta_path}: "
        raise DataError(f"{where if not reason.startswith(where) else ''}{name}: {reason}; {hint}")

    def _skip(self, sample: VideoSample, reason: str) -> None:
        if sample.sample_id not in self.skipped_samples:
            self.skipped_samples[sample.sample_id] = reason
            count = len(self.skipped_samples)
            total = f"{count} {'sample' if count == 1 else 'samples'} skipped so far"
            logger.warning("bad sample %s is skipped (%s): %s", sample.sample_id, total, reason)


def build_training_data(
    name: str = "revos",
    train_files: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    mix: Mapping[str, Any] | None = None,
    **section: Any,
) -> Any:
    """The training data of a config's `data` section.

    Args:
        name: `data.name`, a name of `TRAINING_DATA`, or `package.module:Class`: a benchmark, or a class of training
            data as `verl.protocol.TrainingData` describes it. The class is given `train_files`, the options, and those
            keys of the section that its signature names (the section also holds keys of the loader).
        train_files: `data.train_files`, the class's first argument.
        options: `data.options`.
        mix: `data.mix`, see `veason.data.mixture`; then `name` is not used.

    Raises:
        DataError: no root, or as the class raises it. OptionError: an option that the class does not take.
    """
    if mix:
        return build_mixture(mix, build_training_data, {**section, "train_files": train_files, "options": options})
    build = _resolve_class(name, options or {}, section)
    if not train_files:
        raise DataError("data.train_files is not set: give the folder of the training data")
    return build(train_files)


def check_training_options(
    name: str = "revos", options: Mapping[str, Any] | None = None, mix: Mapping[str, Any] | None = None, **section: Any
) -> None:
    """Check the names and options of `build_training_data`, whose arguments these are; no file is looked for.

    Raises:
        DataError: there is no such data. OptionError: an option that its class does not take.
    """
    whole = {**section, "name": name, "options": options}
    members = [{**whole, "name": label, **own} for label, own in (mix or {}).items() if isinstance(own, Mapping)]
    for member in members if mix else [whole]:
        keys = {key: value for key, value in member.items() if key not in ("name", "options", "train_files", "weight")}
        _resolve_class(member["name"], member["options"] or {}, keys)


def _resolve_class(name: str, options: Mapping[str, Any], section: Mapping[str, Any]) -> Callable[..., Any]:
    """What makes the training data of a folder, with the options and the section's keys that it takes."""
    build = load_by_name(name, TRAINING_DATA, "data.name")
    if isinstance(build, type) and issubclass(build, VideoBenchmark):
        build = partial(KeyframeTrainingData, benchmark=build)
    if not callable(build):
        raise DataError(f"data.name: {name} is no class of training data")
    accepted = list(inspect.signature(build).parameters)
    arguments = {key: value for key, value in section.items() if key in accepted} | dict(options)
    for key, usual in (("timestamp_mode", TIMESTAMP_MODES[0]), ("anchor_frame", ANCHOR_FRAMES[0]), ("reasoning", True)):
        if key not in accepted and section.get(key, usual) != usual:
            raise DataError(f"data.{key}={section[key]}: data.name={name} does not take it")
    check_arguments(build, arguments, "data.options", given=(*accepted[:1], *getattr(build, "keywords", ())))
    return partial(build, **arguments)
