"""Training records from accepted answers, in the published format, and the split into training and validation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from training_data_construction.teacher_tasks import TeacherTask
from veason import masks
from veason.answers import format_answer
from veason.data.training_split import validation_videos
from veason.prompts import Message, build_messages

CoTRecord = dict[str, Any]
IMAGE_TAG = "<image>"
THINK_END = "</think>"


def build_record(
    task: TeacherTask,
    thinking: str,
    size: int = 560,
    absent_objects: str = "zero",
    template: str | None = None,
    decimals: int | None = None,
    coordinate_range: int | None = None,
) -> CoTRecord:
    """Builds one record of the published format.

    Args:
        thinking: the teacher's reasoning.
        size: side in pixels of the student's square frames.
        absent_objects: "zero" labels an object that is not visible in the keyframe as [0, 0, 0, 0], as the published
            code does; "drop" omits it.
        template: see `veason.prompts.load_template`.
        decimals: decimals of the box coordinates; None: 2 for pixels, as published, and 0 for a `coordinate_range`.
        coordinate_range: coordinates are from 0 to this; None: pixels of the student's frames.

    Returns:
        `conversation` (human and gpt turns), `CoT` (the thinking), `solution` (the answer), `frame_ids`,
        `sampled_video_frames` (their files), and the fields of the expression. The answer about an absent target has an
        empty list of boxes.
    """
    sample = task.sample
    if decimals is None:
        decimals = 2 if coordinate_range is None else 0
    boxes = [
        [round(side, decimals) for side in masks.answer_box(box, sample.height, sample.width, size, coordinate_range)]
        for box in task.keyframe_boxes
        if box is not None or absent_objects == "zero"
    ]
    answer = format_answer(thinking, task.keyframe_timestamp, boxes)
    chain, separator, solution = answer.partition(THINK_END)
    messages = build_messages(sample.expression, task.timestamps, template, (size, size), coordinate_range)
    return {
        "sample_id": sample.sample_id,
        "video": sample.video,
        "exp_id": sample.exp_id,
        "exp": sample.expression,
        "type_id": sample.type_id,
        "anno_id": list(sample.object_ids),
        "height": sample.height,
        "width": sample.width,
        "keyframe_resize": size,
        "coordinate_range": coordinate_range,
        "frames": list(sample.frames),
        "frame_ids": task.frame_ids,
        "timestamp_mode": task.timestamp_mode,
        "sampled_video_frames": [os.path.abspath(path) for path in task.paths],
        "CoT": chain + separator,
        "solution": solution.strip(),
        "conversation": [{"from": "human", "value": flat_prompt(messages)}, {"from": "gpt", "value": answer}],
    }


def flat_prompt(messages: Sequence[Message]) -> str:
    """The user turn as one text with `<image>` in place of each image."""
    content = next(message["content"] for message in messages if message["role"] == "user")
    return "".join(IMAGE_TAG if part["type"] == "image" else part["text"] for part in content)


def split_by_video(
    records: Sequence[CoTRecord], val_ratio: float, seed: int
) -> tuple[list[CoTRecord], list[CoTRecord]]:
    """Splits records into training and validation by video.

    Args:
        val_ratio: share of videos for validation; if above 0, at least one video, and never all.
    """
    validation = validation_videos((record["video"] for record in records), val_ratio, seed)
    train = [record for record in records if record["video"] not in validation]
    return train, [record for record in records if record["video"] in validation]
