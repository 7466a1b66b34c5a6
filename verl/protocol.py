"""What the engine asks of a task, and the messages between the driver and its workers.

The engine knows prompts with images and scored responses; it knows no video, no mask and no tracker. Pixels, token ids
and log-probabilities stay on the worker that made them: a group (one prompt and its n responses) never leaves its
worker, and what travels is below 1 MB a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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
    """A data set that driver and workers each open for themselves.

    One that leaves bad samples out has them in `skipped`: sample id -> reason, of this process. One whose responses are
    learned may give them alone, `response(index)`, so that too long a one is found before the run begins.
    """

    def __len__(self) -> int: ...

    def sample_id(self, index: int) -> str: ...

    def outline(self, index: int, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
        """The messages and the (height, width) of each image, without reading a pixel."""

    def example(self, index: int, seed: int) -> Example:
        """The whole prompt; the same (index, seed) gives the same example on every worker."""


class Score(Protocol):
    """The score of one response. A NaN total means that it could not be computed: its group is left out of the update."""

    @property
    def total(self) -> float: ...

    @property
    def parts(self) -> Mapping[str, float]: ...

    @property
    def failure(self) -> str | None:
        """Why the response could not be read, None if it could."""


class Scorer(Protocol):
    """Scores the responses of one group, on the worker that generated them."""

    def score(self, example: Any, responses: Sequence[str]) -> Sequence[Score]:
        """One score per response; `example` is one that the task's own data set made."""


@runtime_checkable
class GroupsScorer(Scorer, Protocol):
    """A scorer that is quicker with several groups at once."""

    def score_groups(self, groups: Sequence[tuple[Any, Sequence[str]]]) -> Sequence[Sequence[Score] | Exception]:
        """What `score` gives for each (example, responses), or what it would raise."""


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


@dataclass(frozen=True)
class GroupAdvantages:
    """Driver to worker: per response the advantage of each of its tokens, float32 [response_tokens]."""

    uid: int
    advantages: list[np.ndarray]


class Engine(Protocol):
    """The workers as a loop sees them: each call reaches every worker and returns when all are done.

    A group stays on the place that generated it (a place is one worker, or the workers of one tensor-parallel engine)
    until it is dropped. An error in a worker is raised here, with its rank; a worker that died or hangs likewise.
    """

    places: int  # workers / tensor_parallel_size
    device_name: str  # of one worker's device, as its vendor names it

    def rollout(self, shares: Sequence[Sequence[GroupRequest]], validation: bool = False) -> dict[str, float]:
        """Generates the groups; `shares[p]` goes to place p. Validation samples by val_n and val_temperature. Gives
        metrics.
        """

    def score(self, uids: Sequence[int]) -> list[GroupResult]:
        """Scores groups that were generated; results in the order of `uids`."""

    def reference(self, uids: Sequence[int], old: bool) -> dict[str, float]:
        """Log-probabilities that the update needs and does not compute: the reference's (with a KL term) and, if `old`,
        the actor's.
        """

    def certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        """Per response the actor's mean over its tokens of log-sum-exp minus mean logit (for the estimator
        grpo_certainty).
        """

    def update(self, advantages: Sequence[GroupAdvantages]) -> dict[str, float]:
        """One optimizer step on these groups, all places together; the rollout engine gets the new weights before it
        next generates.
        """

    def drop(self, uids: Sequence[int]) -> None:
        """Forgets groups."""

    def read_ahead(self, shares: Sequence[Sequence[GroupRequest]]) -> None:
        """Begins to read examples that a later `fine_tune` will ask for, and returns at once; those begun already are
        not read twice.
        """

    def fine_tune(self, shares: Sequence[Sequence[GroupRequest]]) -> dict[str, float]:
        """One optimizer step of supervised fine-tuning on the examples at (index, seed)."""

    def evaluate_loss(self, shares: Sequence[Sequence[GroupRequest]]) -> dict[str, float]:
        """The fine-tuning loss without a step."""

    def skipped(self) -> dict[str, str]:
        """The samples that the workers' data has left out so far, with the reasons (data.on_bad_sample=skip)."""

    def save(self, folder: str) -> None:
        """Writes `folder`/actor: huggingface/ (weights, config, processor), optimizer and scheduler, every rank's
        random state.
        """

    def load(self, folder: str) -> None:
        """Reads what `save` wrote, to the bit."""

    def close(self) -> None:
        """Ends the workers."""
