"""The samples of an evaluation's report: scores, reasoning and pictures of each expression."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from eval.mask_scoring import read_predictions
from eval.prediction_record import PredictionRecord
from veason import masks as rle_masks
from veason.data import VideoBenchmark, VideoSample
from veason.frames import evaluation_frames, read_frame
from veason.visualization.comparison import keyframe_picture, mask_picture
from veason.visualization.drawing import picture_url

TYPES = {0: "referring", 1: "reasoning", 2: "absent", None: "-"}
STRIP_FRAMES = 6
QUALITY = 80  # of the WebP pictures


@dataclass(frozen=True)
class SampleCard:
    """What the report shows about one expression."""

    record: PredictionRecord
    scores: dict[str, float] = field(default_factory=dict)  # J, F and JF in percent; empty without ground truth
    pictures: dict[str, str] = field(default_factory=dict)  # alternative text -> data URL

    @property
    def type(self) -> str:
        return TYPES.get(self.record.type_id, "-")

    @property
    def anchor(self) -> str:
        """The element's id: sample ids may hold any character."""
        return "s" + hashlib.sha256(self.record.sample_id.encode()).hexdigest()[:12]

    @property
    def outcome(self) -> str:
        return "empty" if self.record.failure else "tracked"

    @property
    def is_tracked_target(self) -> bool:
        """Whether there is a target and masks were tracked: only then a high score is a good segmentation."""
        return not self.record.failure and self.type != TYPES[2]


def draw_sample(run: Path, benchmark: VideoBenchmark, sample: VideoSample, record: PredictionRecord) -> dict[str, str]:
    """Data URLs of `masks` (predicted, with ground-truth outlines) and, where there is one, of the `keyframe` with
    boxes.
    """
    indices = evaluation_frames(len(sample.frames), STRIP_FRAMES)
    predicted, _ = read_predictions(run, sample)
    frames = [read_frame(benchmark.frame_path(sample, index)) for index in indices]
    true = benchmark.masks(sample, indices).max(axis=0, initial=0) if benchmark.has_ground_truth else None
    keyframe = record.keyframe
    strip = mask_picture(frames, indices, predicted[indices], true, keyframe)
    pictures = {"masks": picture_url(strip, ".webp", QUALITY)}
    if keyframe is None or not 0 <= keyframe < len(sample.frames):
        return pictures
    frame, true_boxes = read_frame(benchmark.frame_path(sample, keyframe)), None
    if benchmark.has_ground_truth:
        found = [rle_masks.box(rle_masks.encode(mask)) for mask in benchmark.masks(sample, [keyframe])[:, 0]]
        true_boxes = [box for box in found if box]
    drawn = keyframe_picture(frame, keyframe, record.boxes, true_boxes)
    return {"keyframe": picture_url(drawn, ".webp", QUALITY), **pictures}
