"""Chain-of-thought records as examples of supervised fine-tuning.

Reads what `training_data_construction/seed_cot_generation.py` writes, and the records of the published generator. The
prompt is built by `build_messages` as everywhere else; the record gives the frames and the answer. The truth comes with
each example, so that generated answers can be scored as in GRPO.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from veason.data import find_benchmark
from veason.data.base import Benchmark
from veason.data.examples import Example
from veason.data.revos import ReVOS
from veason.data.sample import VideoSample, read_json
from veason.data.training import KeyframeTrainingData
from veason.errors import DataError

NEEDED = ("video", "exp_id", "exp", "anno_id", "frames", "frame_ids", "conversation")


class RecordedReVOS(ReVOS):
    """ReVOS whose samples are those of a file of records; needs no annotation file."""

    def read_videos(self) -> dict[str, dict[str, Any]]:
        """The records in the form of an annotation file: video -> frames, size, expressions."""
        videos: dict[str, dict[str, Any]] = {}
        for sample_id, record in records_by_sample(self.meta_path).items():
            video, exp_id, count = record["video"], str(record["exp_id"]), len(record["frames"])
            if not all(0 <= index < count for index in record["frame_ids"]):
                raise DataError(
                    f"{self.meta_path}: {sample_id}: frame_ids {record['frame_ids']} of a video of {count} frames"
                )
            videos.setdefault(video, {**record, "expressions": {}})["expressions"][exp_id] = record
        return videos


class CoTData(KeyframeTrainingData):
    """Chains of thought as training data, `data.name: cot`.

    Args:
        root: the benchmark's folder, or the records themselves; then the folder is the one that they were made from.
        meta_file: the records, as a path or relative to the folder; needed when `root` is the folder.
        keyframe_resize: side in pixels of the square frames.
        box_side: side of the square that boxes are asked for in; None: pixels of the frames. The records' boxes have to
            be made for the same.
        exclude, prompt_template, on_bad_sample: as for `KeyframeTrainingData`.
        benchmark: what the records were made from (`data.options.benchmark`); by default ReVOS.

    Attributes:
        records: sample id -> record.

    Raises:
        DataError: as `KeyframeTrainingData`, or the file holds no such records.
    """

    seeded: ClassVar[bool] = False  # a record has its frames

    def __init__(
        self,
        root: str | os.PathLike[str],
        meta_file: str | os.PathLike[str] | None = None,
        keyframe_resize: int = 560,
        exclude: str | os.PathLike[str] | Iterable[str] | None = None,
        prompt_template: str | None = None,
        on_bad_sample: str = "raise",
        benchmark: str | type[Benchmark] = ReVOS,
        box_side: int | None = None,
    ) -> None:
        folder, path = Path(root), None if meta_file is None else Path(meta_file)
        if folder.is_file():
            folder, path = _source(folder), folder
        elif path is None:
            raise DataError(f"{folder}: data.meta_file is not set: give the file of chain-of-thought records")
        path = path.absolute() if path.is_file() else folder / path
        self.records = records_by_sample(path)
        cls = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
        super().__init__(
            folder,
            keyframe_resize=keyframe_resize,
            meta_file=str(path) if cls is ReVOS else None,
            include_absent=True,  # the records hold what was asked for
            exclude=exclude,
            prompt_template=prompt_template,
            on_bad_sample=on_bad_sample,
            benchmark=RecordedReVOS if cls is ReVOS else cls,
            box_side=box_side,
        )
        for sample in self.samples:
            record = self.records[sample.sample_id]
            pixels, relative = record.get("keyframe_resize", keyframe_resize), record.get("box_side")
            if (relative or pixels) != (box_side or keyframe_resize):
                made = f"for frames of {pixels} pixels" if relative is None else f"relative to a side of {relative}"
                raise DataError(
                    f"{sample.sample_id}: the record's boxes are {made}, data.keyframe_resize is {keyframe_resize} "
                    f"and data.box_side {'pixels' if box_side is None else box_side}"
                )

    def _is_chosen(self, sample: VideoSample) -> bool:
        return sample.sample_id in self.records

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        return list(self.records[sample.sample_id]["frame_ids"])

    def _build(self, sample: VideoSample, index: int, seed: int) -> Example:
        response = self.records[sample.sample_id]["conversation"][1]["value"]
        return replace(super()._build(sample, index, seed), response=response)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file.

    Raises:
        DataError: the file is missing or broken, or a record lacks what an example is built from.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path} is not a list of chain-of-thought records")
    for number, record in enumerate(records):
        missing = [key for key in NEEDED if key not in record] if isinstance(record, dict) else list(NEEDED)
        if missing:
            raise DataError(f"{path}: record {number} has no {', '.join(missing)}")
        if [turn.get("from") for turn in record["conversation"]] != ["human", "gpt"]:
            raise DataError(f"{path}: the conversation of record {number} is not one human turn and one gpt turn")
    return records


def records_by_sample(path: Path) -> dict[str, dict[str, Any]]:
    """`read_records` by sample id. Raises DataError when two are of one sample."""
    found: dict[str, dict[str, Any]] = {}
    for record in read_records(path):
        sample_id = record.get("sample_id") or f"{record['video']}/{record['exp_id']}"
        if sample_id in found:
            raise DataError(f"{path}: {sample_id} has two records")
        found[sample_id] = record
    return found


def _source(records: Path) -> Path:
    """The folder that records were made from, by their frames' paths: <root>/JPEGImages/<video>/<frame>.jpg."""
    first = next(iter(read_records(records)), {})
    if not first.get("sampled_video_frames"):
        raise DataError(f"{records} holds no record that names its frames")
    above = len(Path(first["video"]).parts) + 1  # a video's name may itself hold folders
    return Path(first["sampled_video_frames"][0]).parents[above]
