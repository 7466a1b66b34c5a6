"""The report's samples: scores, reasoning and pictures of each expression."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from eval.scores import read_predictions
from veason import masks as rle_masks
from veason.data import Benchmark, VideoSample
from veason.frames import evaluation_frames, read_frame
from veason.pictures import draw_boxes, jpeg_url, overlay_masks, strip

Record = dict[str, Any]

TYPES = {0: "referring", 1: "reasoning", 2: "absent", None: "-"}
PREDICTED_COLOUR, TRUE_COLOUR = (230, 57, 70), (60, 220, 110)  # also in templates/report.css
STRIP_FRAMES, STRIP_HEIGHT, KEYFRAME_HEIGHT = 6, 110, 240  # frames of a strip; heights in pixels


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


def make_card(record: Record, scores: dict[str, float], pictures: dict[str, str]) -> SampleCard:
    """The card of a record of predictions.jsonl."""
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
        pictures=pictures,
    )


def draw_sample(run: Path, benchmark: Benchmark, sample: VideoSample, record: Record) -> dict[str, str]:
    """The keyframe with predicted and true boxes, and a strip of frames with predicted masks and true outlines.

    Returns:
        `keyframe` (where the video has the predicted one) and `frames`, as data URLs.
    """
    times = evaluation_frames(len(sample.frames), STRIP_FRAMES)
    predicted, _ = read_predictions(run, sample)
    frames = []
    for time in times:
        frame = read_frame(benchmark.frame_path(sample, time))
        frame = overlay_masks(frame, predicted[time], palette=(PREDICTED_COLOUR,))
        if benchmark.has_truth:
            true = benchmark.masks(sample, [time]).max(axis=(0, 1), initial=0)
            outlines, _ = cv2.findContours(true, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(frame, outlines, -1, TRUE_COLOUR, max(1, sample.height // 240))
        frames.append(frame)
    pictures = {"frames": jpeg_url(strip(frames, [f"{time}" for time in times], height=STRIP_HEIGHT))}
    keyframe = record["keyframe"]
    if keyframe is None or not 0 <= keyframe < len(sample.frames):
        return pictures
    frame = read_frame(benchmark.frame_path(sample, keyframe))
    if benchmark.has_truth:
        true_boxes = [rle_masks.box(rle_masks.encode(mask)) for mask in benchmark.masks(sample, [keyframe])[:, 0]]
        frame = draw_boxes(frame, [box for box in true_boxes if box], TRUE_COLOUR)
    frame = draw_boxes(frame, record["boxes"], PREDICTED_COLOUR)
    height = min(KEYFRAME_HEIGHT, sample.height)
    return {"keyframe": jpeg_url(strip([frame], [f"keyframe {keyframe}"], height=height)), **pictures}
