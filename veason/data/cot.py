"""Chain-of-thought records as examples of supervised fine-tuning.

Reads what `training_data_construction/seed_cot_generation.py` writes, and the records of the published generator. The
prompt is built by `build_messages` as everywhere else; the record gives the frames and the answer. The ground truth
comes with each example, so that generated answers can be scored as in GRPO.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from veason.data import find_benchmark
from veason.data.annotation import (
    MARKUP,
    Rejection,
    as_id,
    as_list,
    as_mapping,
    as_name,
    as_names,
    as_size,
    has_surrogate,
    shorten,
)
from veason.data.base import VideoBenchmark
from veason.data.examples import TrainingExample
from veason.data.revos import ReVOS
from veason.data.sample import VideoSample, read_json
from veason.data.training import KeyframeTrainingData
from veason.errors import DataError, printable
from veason.frames import TIMESTAMP_MODES

THINK_END = "</think>"
REQUIRED_FIELDS = ("video", "exp_id", "exp", "anno_id", "frames", "frame_ids", "conversation")
VIDEO_FIELDS = ("frames", "height", "width")  # fields that the records of one video share


class ReVOSFromCoTRecords(ReVOS):
    """ReVOS whose samples are those of a file of records; needs no annotation file."""

    needs_type = False  # the published generator writes none

    def read_videos(self) -> dict[str, dict[str, Any]]:
        """The records in the form of an annotation file: video -> frames, size, expressions."""
        videos: dict[str, dict[str, Any]] = {}
        records, _ = read_records(self.meta_path)  # `CoTData` tells of those that cannot be used
        for record in records.values():
            video = videos.setdefault(record["video"], {**record, "expressions": {}})
            video["expressions"][str(record["exp_id"])] = record
        return videos


class CoTData(KeyframeTrainingData):
    """Chains of thought as training data, `data.name: cot`.

    Args:
        root: the benchmark's folder, or the records themselves; then the folder is the one that they were made from.
        meta_file: the records, as a path or relative to the folder; needed when `root` is the folder.
        keyframe_resize: side in pixels of the square frames.
        coordinate_range: coordinates are asked for from 0 to this; None: pixels of the frames. The records' boxes have
            to be made for the same.
        exclude, prompt_template, on_bad_sample: as for `KeyframeTrainingData`.
        timestamp_mode: what is shown as a frame's timestamp; the records have to be made for it.
        reasoning: False leaves the reasoning out of the prompt and the responses, an ablation of the paper.
        benchmark: what the records were made from (`data.options.benchmark`); by default ReVOS.

    Attributes:
        records: sample id -> record.

    Raises:
        DataError: as `KeyframeTrainingData`, or the file holds no such records.
    """

    depends_on_seed: ClassVar[bool] = False  # a record has its frames

    def __init__(
        self,
        root: str | os.PathLike[str],
        meta_file: str | os.PathLike[str] | None = None,
        keyframe_resize: int = 560,
        exclude: str | os.PathLike[str] | Iterable[str] | None = None,
        prompt_template: str | None = None,
        on_bad_sample: str = "raise",
        benchmark: str | type[VideoBenchmark] = ReVOS,
        timestamp_mode: str = TIMESTAMP_MODES[0],
        reasoning: bool = True,
        coordinate_range: int | None = None,
    ) -> None:
        folder, path = Path(root), None if meta_file is None else Path(meta_file)
        if folder.is_file():
            folder, path = _data_folder(folder), folder
        elif path is None:
            raise DataError(f"{folder}: data.meta_file is not set: give the file of chain-of-thought records")
        path = path.absolute() if path.is_file() else folder / path
        self.records, self.bad_records = read_records(path, keyframe_resize, timestamp_mode, coordinate_range)
        cls = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
        super().__init__(
            folder,
            keyframe_resize=keyframe_resize,
            meta_file=str(path) if cls is ReVOS else None,
            include_no_target=True,  # the records hold what was asked for
            exclude=exclude,
            prompt_template=prompt_template,
            on_bad_sample=on_bad_sample,
            benchmark=ReVOSFromCoTRecords if cls is ReVOS else cls,
            timestamp_mode=timestamp_mode,
            reasoning=reasoning,
            coordinate_range=coordinate_range,
        )

    def _is_selected(self, sample: VideoSample) -> bool:
        return sample.sample_id in self.records

    def _rejected(self) -> list[Rejection]:
        chosen = [entry for entry in self.benchmark.rejected if {entry.name, entry.video} & self.records.keys()]
        return self.bad_records + chosen

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        return list(self.records[sample.sample_id]["frame_ids"])

    def response(self, index: int) -> str:
        """The response to learn of a sample."""
        return self._response(self.samples[index])

    def _response(self, sample: VideoSample) -> str:
        text = self.records[sample.sample_id]["conversation"][1]["value"]
        return text if self.reasoning else text.rpartition(THINK_END)[2].strip()

    def _build(self, sample: VideoSample, index: int, seed: int) -> TrainingExample:
        return replace(super()._build(sample, index, seed), response=self._response(sample))


def read_records(
    path: Path, side: int | None = None, timestamp_mode: str | None = None, coordinate_range: int | None = None
) -> tuple[dict[str, dict[str, Any]], list[Rejection]]:
    """The records of a file by sample id, and those that cannot be used.

    Args:
        side: of the square frames in pixels that the records' boxes have to be for; None: any.
        timestamp_mode: what the records have to have (`veason.frames.TIMESTAMP_MODES`); None: any.
        coordinate_range: the records' coordinates have to be from 0 to this; None: pixels. Checked with `side`.

    Raises:
        DataError: the file is missing or broken, or holds no list.
    """
    found: dict[str, dict[str, Any]] = {}
    bad: list[Rejection] = []
    of_video: dict[str, list[Any]] = {}
    counts: Counter[str] = Counter()
    for number, record in enumerate(as_list(read_json(path, "file of chain-of-thought records"), f"{path}")):
        name = video = f"record {number}"
        try:
            check_record(as_mapping(record, "it"))
            video = record["video"]
            name = record.get("sample_id") or f"{video}/{record['exp_id']}"
            counts[name] += 1
            shared = [record.get(key) for key in VIDEO_FIELDS]
            if of_video.setdefault(video, shared) != shared:
                raise DataError(f"{name}: another record of its video has other frames or another size")
            if side is not None:
                _check_boxes(record, name, side, coordinate_range)
            made_for = record.get("timestamp_mode", record.get("frame_index", TIMESTAMP_MODES[0]))
            if timestamp_mode is not None and made_for != timestamp_mode:
                wanted = f"data.timestamp_mode is {timestamp_mode}"
                raise DataError(f"{name}: the record's timestamp_mode is {shorten(made_for)}, {wanted}")
            found[name] = record
        except DataError as error:
            bad.append(Rejection(printable(name), printable(video), f"{path}: record {number}: {error}"))
    for name, count in counts.items():
        if count > 1:  # which one is meant is open
            found.pop(name, None)
            bad.append(
                Rejection(printable(name), printable(name.rpartition("/")[0]), f"{path}: {name} has two records")
            )
    return found, bad


def _check_boxes(record: Mapping[str, Any], name: str, side: int, coordinate_range: int | None) -> None:
    """Check that a record's boxes are pixels of frames of that side, or of that range. Raises DataError."""
    pixels, relative = record.get("keyframe_resize", side), record.get("coordinate_range", record.get("box_side"))
    if (relative or pixels) != (coordinate_range or side):
        made = f"for frames of {shorten(pixels)} pixels" if relative is None else f"relative to {shorten(relative)}"
        wanted = f"data.keyframe_resize is {side}"
        if coordinate_range or relative:
            wanted += f" and data.coordinate_range {coordinate_range}"
        raise DataError(f"{name}: the record's boxes are {made}, {wanted}")


def check_record(record: Mapping[str, Any]) -> None:
    """Check that a record has what an example is built from. Raises DataError with the reason alone."""
    if missing := [key for key in REQUIRED_FIELDS if key not in record]:
        raise DataError(f"it has no {', '.join(missing)}")
    video = as_name(record["video"], "its video", folders=True)
    exp_id = as_name(as_id(record["exp_id"], "its exp_id"), "its exp_id")
    if as_name(record.get("sample_id", exp_id), "its sample_id", folders=True).rpartition("/")[2] != exp_id:
        raise DataError(f"its sample_id {record['sample_id']} is not of its exp_id {exp_id}")
    if "height" in record or "width" in record:
        as_size(record.get("height"), record.get("width"))
    where, frames, indices = f"{video}/{exp_id}", as_names(record["frames"], "frames"), record["frame_ids"]
    if not all(type(index) is int for index in as_list(indices, "frame_ids")) or sorted(set(indices)) != indices:
        raise DataError(f"{where}: frame_ids {shorten(indices)} that are no increasing indices of frames")
    if not 0 <= indices[0] <= indices[-1] < len(frames):
        raise DataError(f"{where}: frame_ids {indices[0]} to {indices[-1]} of a video of {len(frames)} frames")
    turns = [as_mapping(turn, "a turn") for turn in as_list(record["conversation"], "its conversation")]
    if [turn.get("from") for turn in turns] != ["human", "gpt"]:
        raise DataError("its conversation is not one human turn and one gpt turn")
    answer = turns[1].get("value")
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(f"{where}: its answer is {shorten(answer)}, not a text")
    if (found := MARKUP.search(answer)) or "\0" in answer or has_surrogate(answer):
        raise DataError(f"{where}: its answer holds {shorten(found.group() if found else 'half a character')}")


def _data_folder(records: Path) -> Path:
    """The folder that records were made from, by their frames' paths: <root>/JPEGImages/<video>/<frame>.jpg."""
    found, bad = read_records(records)
    for record in found.values():
        files = record.get("sampled_video_frames")
        if isinstance(files, list) and files and isinstance(files[0], str):
            above = len(Path(record["video"]).parts) + 1  # a video's name may itself hold folders
            if len(folders := Path(files[0]).parents) > above:
                return folders[above]
    reason = f"; {bad[0].reason}" if bad else ""
    raise DataError(f"{records} holds no record that names its frames{reason}")
