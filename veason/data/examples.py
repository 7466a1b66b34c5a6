"""What the task gives to a trainer: a prompt with its frames, and the ground truth that a response is scored
against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of one expression on its sampled frames.

    Attributes:
        timestamps: those shown to the model, one per sampled frame (`veason.frames.shown_timestamps`).
        boxes: per sampled frame a list of [x1, y1, x2, y2] in pixels of `masks`; an absent object is [0, 0, 0, 0].
        masks: uint8 [T, H, W], the union of the target masks, 0 or 1.
    """

    timestamps: list[int]
    boxes: list[list[list[float]]]
    masks: np.ndarray


@dataclass(frozen=True)
class TrainingExample:
    """One training prompt, built on the worker that generates its responses: pixels never travel.

    Attributes:
        sample_id: `<video>/<exp_id>`, named in every error.
        messages: chat messages whose images are bare `{"type": "image"}` placeholders, in the order of `images`.
        images: RGB frames at the size that the model sees.
        ground_truth: what the reward compares with; None where nothing is scored.
        response: the target response of supervised fine-tuning; None for reinforcement learning.
        expression: as in the data set; passed to the reward's parts.
        coordinate_range: `messages` ask for coordinates from 0 to this; None: pixels of the ground-truth masks.
    """

    sample_id: str
    messages: list[dict[str, Any]]
    images: list[Image]
    ground_truth: GroundTruth | None
    response: str | None = None
    expression: str = ""
    coordinate_range: int | None = None
