"""The teacher's tasks: expressions, frames and boxes, planned before the first request."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training_data_construction.reasoning_prompts import WORKED_EXAMPLES
from veason import masks
from veason.data import VideoBenchmark, VideoSample
from veason.errors import DataError
from veason.frames import ANCHOR_FRAMES, TIMESTAMP_MODES, anchored_frames, read_frame, shown_timestamps
from veason.visualization.drawing import draw_boxes, picture_url

TEACHER_FRAMES = 8  # N of the training rule
MAX_PER_VIDEO = 10  # expressions
LONG_SIDE, SHORT_SIDE = 640, 480  # pixels: images fit into 640 x 480 (landscape) or 480 x 640 (portrait)


@dataclass(frozen=True)
class TeacherTask:
    """One expression that the teacher reasons about.

    Attributes:
        frame_ids: indices of the shown frames in the video.
        keyframe: one of `frame_ids`.
        example: index of the worked example of the first request, 0 to 2.
        absent: the target is not in the video.
        paths: per shown frame its file.
        boxes: per shown frame and object the extreme pixels (left, top, right, bottom), None where it is not visible.
        timestamp_mode: what a frame's timestamp is, see `veason.frames.shown_timestamps`.
    """

    sample: VideoSample
    frame_ids: list[int]
    keyframe: int
    example: int
    absent: bool
    paths: list[Path]
    boxes: list[list[masks.Box | None]]
    timestamp_mode: str = TIMESTAMP_MODES[0]

    @property
    def timestamps(self) -> list[int]:
        """The timestamps of the shown frames, in seconds."""
        return shown_timestamps(self.frame_ids, self.timestamp_mode)

    @property
    def keyframe_timestamp(self) -> int:
        return self.timestamps[self.frame_ids.index(self.keyframe)]

    @property
    def keyframe_boxes(self) -> list[masks.Box | None]:
        """Per object its box in the keyframe."""
        return self.boxes[self.frame_ids.index(self.keyframe)] if self.boxes else []


def plan_tasks(
    benchmark: VideoBenchmark,
    seed: int,
    include_no_target: bool = False,
    exclude: Iterable[str] = (),
    max_per_video: int = MAX_PER_VIDEO,
    sampled_frames: int = TEACHER_FRAMES,
    on_bad_sample: str = "raise",
    anchor_frame: str = ANCHOR_FRAMES[0],
    timestamp_mode: str = TIMESTAMP_MODES[0],
) -> tuple[list[TeacherTask], dict[str, str]]:
    """Plans the tasks of a data set, in its order.

    Random choices depend on the seed and the sample id only, so a restarted run asks the same questions.

    Args:
        exclude: sample ids and video names to skip.
        max_per_video: most expressions per video; the first usable ones are taken.
        on_bad_sample: "raise", or "skip" for samples without masks, with missing frames or with masks of another size.
        anchor_frame: how the keyframe is chosen, see `veason.frames.anchored_frames`.
        timestamp_mode: see `TeacherTask`.

    Returns:
        The tasks, and for each skipped bad sample the reason.

    Raises:
        DataError: there is no usable expression, or a bad sample.
    """
    excluded, taken, bad = set(exclude), Counter[str](), dict[str, str]()
    hint = "(--exclude or --on_bad_sample skip omits it)"
    for entry in benchmark.rejected:
        if not excluded & {entry.name, entry.video}:
            if on_bad_sample != "skip":
                raise DataError(f"{entry.name}: {entry.reason} {hint}")
            bad[entry.name] = entry.reason
    tasks = []
    for sample in tqdm(benchmark.samples, desc="planning", unit="expr", disable=None, leave=False):
        unwanted = excluded & {sample.sample_id, sample.video} or (sample.type_id == 2 and not include_no_target)
        if unwanted or taken[sample.video] >= max_per_video:
            continue
        try:
            task = _plan(benchmark, sample, seed, sampled_frames, anchor_frame)
            tasks.append(replace(task, timestamp_mode=timestamp_mode))
            taken[sample.video] += 1
        except DataError as error:
            if on_bad_sample != "skip":
                raise DataError(f"{error} {hint}") from error
            bad[sample.sample_id] = str(error)
    if not tasks:
        left_out = f"; {len(bad)} bad samples, first {next(iter(bad.items()))}" if bad else ""
        raise DataError(f"no expression to ask about in {benchmark.meta_path}{left_out}")
    return tasks, bad


def _plan(
    benchmark: VideoBenchmark, sample: VideoSample, seed: int, sampled_frames: int, anchor_frame: str
) -> TeacherTask:
    if problems := benchmark.training_problems(sample):
        raise DataError(f"{sample.sample_id}: {problems[0]}")
    absent = sample.type_id == 2
    areas = np.zeros(len(sample.frames)) if absent else benchmark.areas(sample)
    if not absent and not areas.any():
        raise DataError(f"{sample.sample_id}: no mask in any frame, in {benchmark.ground_truth_path(sample)}")
    rng = np.random.default_rng([seed, zlib.crc32(sample.sample_id.encode())])
    keyframe, frame_ids = anchored_frames(areas, sampled_frames, rng, anchor_frame)
    tracks = [] if absent else benchmark.checked_masks(sample, frame_ids)
    return TeacherTask(
        sample=sample,
        frame_ids=frame_ids,
        keyframe=keyframe,
        example=int(rng.integers(len(WORKED_EXAMPLES))),
        absent=absent,
        paths=[benchmark.frame_path(sample, index) for index in frame_ids],
        boxes=[[masks.box(rle) for rle in frame] for frame in zip(*tracks, strict=True)],
    )


def teacher_image_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the teacher's image: fitted into 640 x 480 (or 480 x 640), never enlarged."""
    most_height, most_width = (SHORT_SIDE, LONG_SIDE) if width > height else (LONG_SIDE, SHORT_SIDE)
    scale = min(1.0, most_height / height, most_width / width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def annotated_frame_urls(task: TeacherTask) -> list[str]:
    """Each shown frame, scaled, with the boxes of the visible targets, as a `data:` URL (JPEG).

    Raises:
        DataError: a frame is missing, unreadable or not of the annotated size; names the sample.
    """
    pictures = []
    for position, path in enumerate(task.paths):
        try:
            frame = read_frame(path, (task.sample.height, task.sample.width))
        except DataError as error:
            raise DataError(f"{task.sample.sample_id}: {error}") from error
        height, width = teacher_image_size(*frame.shape[:2])
        picture = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        visible = [box for box in (task.boxes[position] if task.boxes else []) if box is not None]
        scale = np.array([width / task.sample.width, height / task.sample.height] * 2)
        picture = draw_boxes(picture, np.array(visible, dtype=float).reshape(-1, 4) * scale)
        pictures.append(picture_url(picture, quality=90))
    return pictures
