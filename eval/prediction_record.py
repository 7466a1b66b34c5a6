"""One line of predictions.jsonl: what a policy answered about one sample, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from veason.data import VideoSample
from veason.inference.prediction import Prediction


@dataclass(frozen=True)
class PredictionRecord:
    """The prediction for one sample; the first five fields are those of `VideoSample`."""

    sample_id: str
    video: str
    exp_id: str
    expression: str
    type_id: int | None
    num_objects: int  # ground-truth objects; 0 where the benchmark does not give them
    frames: int  # of the video
    size: list[int]  # height and width of the video in pixels
    result_dir: str  # folder of the masks below the run's
    shown: list[int]  # frames that the policy saw; none where the tracker was given the expression without a policy
    answer: str  # the whole text that the policy wrote
    thinking: str  # its reasoning
    keyframe: int | None  # where tracking starts
    boxes: list[list[int]]  # [x1, y1, x2, y2] in pixels of the video
    failure: str | None  # why every mask is empty, None where boxes were tracked (see `Prediction`)
    seconds: dict[str, float]  # this sample's share of the time of "policy", "tracker" and "write"
    # Of an answer with points, per object what is tracked on each of its keyframes (`FramePrompt.to_json`); `boxes`
    # then has one box an object.
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
