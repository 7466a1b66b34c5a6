"""What `verl` asks of a task, and the messages between the driver and its workers.

It knows prompts with images and scored responses; it knows no video, no mask and no tracker. `Task` is what a run is
made of: data, scorer and what belongs to them. A data set of your own has the methods of `TrainingData` and is named by
`data.name=package.module:name`. There is no `DataProto`: pixels, token ids and log-probabilities stay on the worker
that made them. A group (one prompt and its n responses) never leaves its worker; what travels is below 1 MB a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL.Image import Image

from verl.atomic_files import FileChecksums
from verl.metric_types import Metrics


class Example(Protocol):
    """One prompt: chat messages with one image placeholder per image, and the images in that order."""

    @property
    def sample_id(self) -> str: ...

    @property
    def messages(self) -> list[dict[str, Any]]: ...

    @property
    def images(self) -> list[Image]: ...

    @property
    def ground_truth(self) -> Any:
        """Passed on to the scorer."""

    @property
    def response(self) -> str | None:
        """The target of supervised fine-tuning."""


class TrainingData(Protocol):
    """A data set that driver and workers each open for themselves.

    Optional attributes: `depends_on_seed`, False where a sample's prompt is the same in every episode;
    `skipped_samples`, sample id -> reason of the samples left out in this process; `startup_messages`, lines that are
    printed before the run begins; `response(index)`, the target of fine-tuning alone, so that too long a one is found
    before the run begins.
    """

    def __len__(self) -> int: ...

    def sample_id(self, index: int) -> str: ...

    def messages_and_sizes(self, index: int, seed: int) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
        """The messages and the (height, width) of each image, without reading a pixel."""

    def example(self, index: int, seed: int) -> Example:
        """The whole prompt; the same (index, seed) gives the same example on every worker."""


class ResponseScore(Protocol):
    """The score of one response. A NaN total could not be computed: its group is left out of the update."""

    @property
    def total(self) -> float: ...

    @property
    def parts(self) -> Mapping[str, float]: ...

    @property
    def failure(self) -> str | None:
        """Why the response could not be parsed, None if it could."""


class Scorer(Protocol):
    """Scores the responses of one group, on the worker that generated them.

    With a method `prepare(example)` it is also called before there are responses, while they are generated: what does
    not depend on them can be computed then. What it returns takes the example's place in `score`.
    """

    def score(self, example: Any, responses: Sequence[str]) -> Sequence[ResponseScore]:
        """One score per response; `example` is one that the task's own data set made."""


@runtime_checkable
class BatchScorer(Scorer, Protocol):
    """A scorer that is quicker with several groups at once."""

    def score_groups(
        self, groups: Sequence[tuple[Any, Sequence[str]]]
    ) -> Sequence[Sequence[ResponseScore] | Exception]:
        """What `score` returns for each (example, responses), or what it would raise."""


# (scorer, example, responses) -> per response pictures by name, uint8 [H, W, 3] RGB
DrawRollouts = Callable[[Any, Any, Sequence[str]], Sequence[Mapping[str, np.ndarray]]]


@dataclass(frozen=True)
class Task:
    """A task as factories that can be pickled: driver and workers each make their own.

    Attributes:
        data: opens the training data.
        validation: opens the validation data; None: validation prompts come from the training data.
        scorer: makes the scorer on a device; None: nothing is generated, and no rollout engine is started.
        draw_pictures: of the responses to a prompt, for trainer.log_rollouts_freq; None: rollouts are logged without
            pictures.
        checkpoint_files: file name -> JSON content, written beside the weights of every checkpoint (in huggingface/).
    """

    data: Callable[[], TrainingData]
    validation: Callable[[], TrainingData] | None = None
    scorer: Callable[[str], Scorer] | None = None
    draw_pictures: DrawRollouts | None = None
    checkpoint_files: Mapping[str, Any] = field(default_factory=dict)


def missing_methods(data: object) -> list[str]:
    """The methods of `TrainingData` that an object lacks."""
    needed = ("__len__", "sample_id", "messages_and_sizes", "example")
    return [name for name in needed if not callable(getattr(data, name, None))]


@dataclass(frozen=True)
class GroupRequest:
    """Driver to worker: generate and score a group. `uid` is unique in the run, `seed` fixes frames and sampling."""

    uid: int
    index: int
    seed: int


@dataclass(frozen=True)
class GroupResult:
    """Worker to driver: what the driver needs to compute advantages and to log. Lists have one entry per response.

    Attributes:
        truncated: the response hit the length limit.
        baseline: score of the greedy response, where the estimator takes it (ReMax).
    """

    uid: int
    sample_id: str
    prompt_tokens: int
    responses: list[str]
    response_tokens: list[int]
    truncated: list[bool]
    scores: list[float]
    parts: list[dict[str, float]]
    parse_failures: list[str | None]
    baseline: float | None = None


@dataclass(frozen=True)
class GroupAdvantages:
    """Driver to worker: per response the advantage of each of its tokens, float32 [response_tokens]."""

    uid: int
    advantages: list[np.ndarray]


class TrainingBackend(Protocol):
    """The workers as a loop sees them: each call reaches every worker and returns when all are done.

    A group stays on the replica that generated it until it is dropped. An error in a worker is raised here, with its
    rank; a worker that died or hangs likewise.

    Attributes:
        replicas: data-parallel rollout engines, each of `worker.rollout.tensor_parallel_size` workers.
        device_name: of one worker's device, as its vendor names it.
    """

    replicas: int
    device_name: str

    def rollout(self, batches: Sequence[Sequence[GroupRequest]], validation: bool = False) -> Metrics:
        """Generates `batches[r]` on replica r and begins to score; validation samples by val_n and val_temperature."""

    def prefetch_rollout_batch(self, batches: Sequence[Sequence[GroupRequest]]) -> None:
        """Begins to load the prompts of the next training rollout, and returns at once."""

    def collect_scores(self, uids: Sequence[int]) -> list[GroupResult]:
        """Waits until groups that were generated are scored; results in the order of `uids`."""

    def draw_pictures(
        self, groups: Sequence[tuple[GroupRequest, Sequence[str]]], folder: str, validation: bool = False
    ) -> list[list[dict[str, str]]]:
        """Draws responses into files of a folder; per group and response picture name -> file name."""

    def compute_ref_log_probs(self, uids: Sequence[int]) -> Metrics:
        """Computes the reference model's log-probabilities, for the KL term. Scoring may go on meanwhile."""

    def compute_old_log_probs(self, uids: Sequence[int]) -> Metrics:
        """Computes the actor's log-probabilities before the first of several updates. Scoring may go on meanwhile."""

    def compute_self_certainty(self, uids: Sequence[int]) -> dict[int, list[float]]:
        """Per response the mean over its tokens of log-sum-exp minus mean logit (estimator grpo_certainty)."""

    def update(self, advantages: Sequence[GroupAdvantages]) -> Metrics:
        """One optimizer step on these groups; the rollout engine gets the new weights before it next generates.
        `actor/skipped_updates` is 1 where loss or gradient were not finite, and the weights are the old ones.
        """

    def take_nonfinite_samples(self) -> list[str]:
        """The samples of the last update if that was skipped because its loss or gradient was not finite: those whose
        own loss was not, else all of them.
        """

    def drop(self, uids: Sequence[int]) -> None:
        """Forgets groups."""

    def prefetch_sft_batch(self, batches: Sequence[Sequence[GroupRequest]]) -> None:
        """Begins to load examples for later calls of `fine_tune`, and returns at once; none is loaded twice."""

    def fine_tune(self, batches: Sequence[Sequence[GroupRequest]]) -> Metrics:
        """One optimizer step of supervised fine-tuning on the examples at (index, seed)."""

    def evaluate_loss(self, batches: Sequence[Sequence[GroupRequest]]) -> Metrics:
        """The fine-tuning loss without a step."""

    def skipped_samples(self) -> dict[str, str]:
        """The samples that the workers' data has left out so far, with the reasons (data.on_bad_sample=skip)."""

    def check_folder(self, folder: str, token: str) -> list[tuple[str, str | None]]:
        """Per rank its host, and what is wrong with the folder there. Each rank reads `.shared_<token>`, which has to
        hold the token, and writes `.shared_<token>_<rank>`.
        """

    def save(self, folder: str) -> FileChecksums:
        """Writes `folder`/actor: weights, config, processor, optimizer, schedule, every rank's random state; returns
        what every file is, by its path in `folder`.
        """

    def load(self, folder: str) -> None:
        """Reads what `save` wrote: with as many workers to the bit, with another number with new random states."""

    def close(self) -> None:
        """Ends the workers."""
