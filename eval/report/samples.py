"""The samples of an evaluation's report: scores, reasoning and pictures of each expression."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.scores import read_predictions
from veason import masks as rle_masks
from veason.comparison import keyframe_picture, mask_picture
from veason.data import Benchmark, VideoSample
from veason.frames import evaluation_frames, read_frame
from veason.pictures import picture_url

Record = dict[str, Any]

TYPES = {0: "referring", 1: "reasoning", 2: "absent", None: "-"}
STRIP_FRAMES = 6
QUALITY = 80  # of the WebP pictures


@dataclass(frozen=True)
class SampleCard:
    """What the report shows about one expression.

    Attributes:
        scores: J, F and JF in percent; empty without ground truth.
        failure: why the masks are empty, or "".
        pictures: alternative text -> data URL.
    """

    sample_id: str
    expression: str
    type: str
    objects: int
    frames: int
    keyframe: int | None
    boxes: list[list[float]] | None
    thinking: str
    answer: str
    failure: str
    scores: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """The element's id: sample ids may hold any character."""
        return "s" + hashlib.sha256(self.sample_id.encode()).hexdigest()[:12]

    @property
    def outcome(self) -> str:
        return "empty" if self.failure else "tracked"

    @property
    def is_tracked_target(self) -> bool:
        """Whether there is a target and masks were tracked: only then a high score is a good segmentation."""
        return not self.failure and self.type != TYPES[2]


def make_card(record: Record, scores: dict[str, float]) -> SampleCard:
    """The card of a record of predictions.jsonl, without pictures."""
    return SampleCard(
        sample_id=record["sample_id"],
        expression=record["expression"],
        type=TYPES.get(record["type_id"], "-"),
        objects=record["num_objects"],
        frames=record["frames"],
        keyframe=record["keyframe"],
        boxes=record["boxes"],
        thinking=record["thinking"],
        answer=record["answer"],
        failure=record["failure"] or "",
        scores={name: 100 * value for name, value in scores.items()},
    )


def draw_sample(run: Path, benchmark: Benchmark, sample: VideoSample, record: Record) -> dict[str, str]:
    """The keyframe with predicted and true boxes, and a strip of frames with predicted masks and true outlines.

    Returns:
        `keyframe` (where the video has the predicted one) and `masks`, as data URLs.
    """
    times = evaluation_frames(len(sample.frames), STRIP_FRAMES)
    predicted, _ = read_predictions(run, sample)
    frames = [read_frame(benchmark.frame_path(sample, time)) for time in times]
    true = benchmark.masks(sample, times).max(axis=0, initial=0) if benchmark.has_truth else None
    keyframe = record["keyframe"]
    strip = mask_picture(frames, times, predicted[times], true, keyframe)
    pictures = {"masks": picture_url(strip, ".webp", QUALITY)}
    if keyframe is None or not 0 <= keyframe < len(sample.frames):
        return pictures
    frame, true_boxes = read_frame(benchmark.frame_path(sample, keyframe)), None
    if benchmark.has_truth:
        found = [rle_masks.box(rle_masks.encode(mask)) for mask in benchmark.masks(sample, [keyframe])[:, 0]]
        true_boxes = [box for box in found if box]
    drawn = keyframe_picture(frame, keyframe, record["boxes"], true_boxes)
    return {"keyframe": picture_url(drawn, ".webp", QUALITY), **pictures}
