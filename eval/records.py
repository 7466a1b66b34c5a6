"""One line of predictions.jsonl: what a policy answered about one sample, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from veason.data import VideoSample
from veason.predictions import Prediction


@dataclass(frozen=True)
class PredictionRecord:
    """The prediction for one sample.

    Attributes:
        sample_id, video, exp_id, expression, type_id: as in `VideoSample`.
        num_objects: true objects; 0 where the benchmark does not give them.
        frames: of the video.
        size: height and width of the video in pixels.
        result_dir: folder of the masks below the run's.
        shown: the frames that the policy saw; none where the tracker was given the expression without a policy.
        answer: the whole text that the policy wrote; `thinking` its reasoning.
        keyframe, boxes: where tracking starts; boxes are [x1, y1, x2, y2] in pixels of the video.
        failure: why every mask is empty, None where boxes were tracked (see `Prediction`).
        seconds: this sample's share of the time of "policy", "tracker" and "write".
        objects: of an answer with points, per object what is tracked on each of its keyframes (`FramePrompt.to_json`);
            `boxes` then has one box an object.
    """

    sample_id: str
    video: str
    exp_id: str
    expression: str
    type_id: int | None
    num_objects: int
    frames: int
    size: list[int]
    result_dir: str
    shown: list[int]
    answer: str
    thinking: str
    keyframe: int | None
    boxes: list[list[int]]
    failure: str | None
    seconds: dict[str, float]
    objects: list[list[dict[str, Any]]] = field(default_factory=list)

    @classmethod
    def make(
        cls, sample: VideoSample, prediction: Prediction, shown: list[int], seconds: dict[str, float]
    ) -> PredictionRecord:
        return cls(
            sample_id=sample.sample_id,
            video=sample.video,
            exp_id=sample.exp_id,
            expression=sample.expression,
            type_id=sample.type_id,
            num_objects=sample.num_objects,
            frames=len(sample.frames),
            size=[sample.height, sample.width],
            result_dir=sample.result_dir,
            shown=shown,
            answer=prediction.text,
            thinking=prediction.thinking,
            keyframe=prediction.keyframe,
            boxes=[list(box) for box in prediction.boxes],
            failure=prediction.failure,
            seconds=seconds,
            objects=[[each.to_json() for each in item] for item in prediction.objects],
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PredictionRecord:
        """Raises KeyError when a field is missing; fields of other versions are left out."""
        earlier: dict[str, Any] = {"objects": []}  # of a version that knew no points
        return cls(**{item.name: ({**earlier, **content})[item.name] for item in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
