"""Supervised fine-tuning on chains of thought: the records of `training_data_construction/seed_cot_generation.py` as
training examples.

The prompt is built by `build_messages` as everywhere else; the record gives the frames and the answer. The truth comes
with each example, so that generated answers can be scored as in GRPO. The seed's own records are read too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from veason.data.base import VideoSample, read_json
from veason.data.examples import Example
from veason.data.revos import ReVOS
from veason.data.training import KeyframeTrainingData
from veason.errors import DataError

NEEDED = ("video", "exp_id", "exp", "anno_id", "frames", "frame_ids", "conversation")


class RecordedReVOS(ReVOS):
    """ReVOS seen through a file of records: one sample each.

    Attributes:
        records: sample id -> record.
    """

    def read_videos(self) -> dict[str, dict[str, Any]]:
        """The records in the form of an annotation file: video -> frames, size, expressions."""
        self.records: dict[str, dict[str, Any]] = {}
        videos: dict[str, dict[str, Any]] = {}
        for record in read_records(self.meta_path):
            video, exp_id = record["video"], str(record["exp_id"])
            sample_id, count = f"{video}/{exp_id}", len(record["frames"])
            if sample_id in self.records:
                raise DataError(f"{self.meta_path}: {sample_id} has two records")
            if not all(0 <= index < count for index in record["frame_ids"]):
                raise DataError(
                    f"{self.meta_path}: {sample_id}: frame_ids {record['frame_ids']} of a video of {count} frames"
                )
            self.records[sample_id] = record
            videos.setdefault(video, {**record, "expressions": {}})["expressions"][exp_id] = record
        return videos


class CoTData(KeyframeTrainingData):
    """Chains of thought as training data, `data.name: cot`.

    Args:
        root: the ReVOS folder, or the records themselves; then the folder is the one that they were made from.
        meta_file: the records, as a path or relative to the ReVOS folder; needed when `root` is the folder.
        keyframe_resize: side in pixels of the square frames; it has to be the one that the records' boxes were made
            for.
        exclude, prompt_template, on_bad_sample: as for `KeyframeTrainingData`.

    Raises:
        DataError: as `KeyframeTrainingData`, or the file holds no such records.
    """

    benchmark_class: ClassVar[type[ReVOS]] = RecordedReVOS
    benchmark: RecordedReVOS
    seeded: ClassVar[bool] = False  # a record has its frames

    def __init__(
        self,
        root: str | os.PathLike[str],
        meta_file: str | os.PathLike[str] | None = None,
        keyframe_resize: int = 560,
        exclude: str | os.PathLike[str] | Iterable[str] | None = None,
        prompt_template: str | None = None,
        on_bad_sample: str = "raise",
    ) -> None:
        folder, records = Path(root), meta_file
        if folder.is_file():
            folder, records = _source(folder), folder.absolute()
        elif records is None:
            raise DataError(f"{folder}: data.meta_file is not set: give the file of chain-of-thought records")
        elif Path(records).is_file():
            records = Path(records).absolute()
        super().__init__(
            folder,
            keyframe_resize=keyframe_resize,
            meta_file=str(records),
            include_absent=True,  # the records hold what was asked for
            exclude=exclude,
            prompt_template=prompt_template,
            on_bad_sample=on_bad_sample,
        )
        for sample in self.samples:
            told = self.benchmark.records[sample.sample_id].get("keyframe_resize", keyframe_resize)
            if told != keyframe_resize:
                raise DataError(
                    f"{sample.sample_id}: the record's boxes are for frames of {told} pixels, data.keyframe_resize is "
                    f"{keyframe_resize}"
                )

    def _frames(self, sample: VideoSample, index: int, seed: int) -> list[int]:
        return list(self.benchmark.records[sample.sample_id]["frame_ids"])

    def _build(self, sample: VideoSample, index: int, seed: int) -> Example:
        response = self.benchmark.records[sample.sample_id]["conversation"][1]["value"]
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


def _source(records: Path) -> Path:
    """The ReVOS folder that records were made from, by their frames' paths: <root>/JPEGImages/<video>/<frame>.jpg."""
    first = next(iter(read_records(records)), {})
    if not first.get("sampled_video_frames"):
        raise DataError(f"{records} holds no record that names its frames")
    above = len(Path(first["video"]).parts) + 1  # a video's name may itself hold folders
    return Path(first["sampled_video_frames"][0]).parents[above]
