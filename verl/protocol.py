"""What the engine asks of a task, and the messages between the driver and its workers.

The engine knows prompts with images and scored responses; it knows no video, no mask and no tracker. Pixels, token ids and log-probabilities
stay on the worker that made them: a group (one prompt and its n responses) never leaves its worker, and what travels is below 1 MB a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image


class Example(Protocol):
    """One prompt: chat messages with bare image placeholders, and the images in that order."""

    sample_id: str
    messages: list[dict[str, Any]]
    images: list[Image]
    truth: Any  # handed to the scorer unread
    response: str | None  # the target of supervised fine-tuning


class TrainingData(Protocol):
    """A data set that driver and workers each open for themselves."""

    def __len__(self) -> int: ...

    def sample_id(self, index: int) -> str: ...

    def outline(self, index: int, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
        """The messages and the (height, width) of each image, without reading a pixel."""

    def example(self, index: int, seed: int) -> Example:
        """The whole prompt; the same (index, seed) gives the same example on every worker."""


class Score(Protocol):
    """The score of one response. A NaN total means that it could not be computed: its group is left out of the update."""

    total: float
    parts: Mapping[str, float]
    failure: str | None  # why the response could not be read, None if it could


class Scorer(Protocol):
    """Scores the responses of one group, on the worker that generated them."""

    def score(self, example: Example, responses: Sequence[str]) -> list[Score]: ...


@dataclass(frozen=True)
class GroupRequest:
    """Driver to worker: generate and score a group. `uid` is unique in the run, `seed` fixes frames and sampling."""

    uid: int
    index: int
    seed: int


@dataclass(frozen=True)
class GroupResult:
    """Worker to driver: what the driver needs to compute advantages and to log. All lists have one entry per response."""

    uid: int
    sample_id: str
    prompt_tokens: int
    responses: list[str]
    response_tokens: list[int]
    truncated: list[bool]  # the response hit the length limit
    totals: list[float]
    parts: list[dict[str, float]]
    failures: list[str | None]
    baseline: float | None = None  # score of the greedy response, where the estimator asks for it (ReMax)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupAdvantages:
    """Driver to worker: per response the advantage of each of its tokens, float32 [response_tokens]."""

    uid: int
    advantages: list[np.ndarray]
