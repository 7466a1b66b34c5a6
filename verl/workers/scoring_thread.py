"""Scores groups in a thread of its own while others are generated, a few at a time."""

from __future__ import annotations

import faulthandler
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

import torch

from verl.protocol import BatchScorer, Example, GroupResult, ResponseScore, Scorer
from verl.workers.rollout_engine import Completion

log = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST_SCORE = 1e18  # its square, summed over a group, still fits into float32
SCORE_BATCH = 4  # groups that are handed to the scorer at once


@dataclass(frozen=True)
class GroupCompletions:
    """The responses to one prompt, and the greedy one whose score is the baseline (ReMax), if any."""

    responses: list[Completion]
    greedy: Completion | None = None

    @property
    def all(self) -> list[Completion]:
        return self.responses if self.greedy is None else [*self.responses, self.greedy]


@dataclass(frozen=True)
class PendingGroup:
    """A group between its rollout and its score."""

    uid: int
    example: Example
    prompt_tokens: int
    completions: GroupCompletions
    result: Future[GroupResult] = field(default_factory=Future)

    def set_scores(self, texts: list[str], scores: Sequence[ResponseScore]) -> None:
        """Sets the result, from the texts and scores of the responses, then of the greedy one."""
        name = self.example.sample_id
        if len(scores) != len(texts):
            raise RuntimeError(f"{name}: the scorer gave {len(scores)} scores for {len(texts)} responses")
        for score in scores:
            if abs(float(score.total)) > LARGEST_SCORE:  # NaN is not: it stands for a score that could not be computed
                raise RuntimeError(f"{name}: a score of {score.total} overflows float32 once its group is normalised")
        responses, n = self.completions.responses, len(self.completions.responses)
        result = GroupResult(
            uid=self.uid,
            sample_id=self.example.sample_id,
            prompt_tokens=self.prompt_tokens,
            responses=texts[:n],
            response_tokens=[len(response.ids) for response in responses],
            truncated=[response.truncated for response in responses],
            scores=[float(score.total) for score in scores[:n]],
            parts=[dict(score.parts) for score in scores[:n]],
            parse_failures=[score.failure for score in scores[:n]],
            baseline=None if self.completions.greedy is None else float(scores[n].total),
        )
        self.result.set_result(result)

    def set_nan(self, texts: list[str]) -> None:
        """Sets a result whose scores could not be computed: NaN, no parts."""
        nan: Any = SimpleNamespace(total=float("nan"), parts={}, failure=None)
        self.set_scores(texts, [nan] * len(texts))


class ScoringThread:
    """Hands groups to a scorer in fixed batches: in what order they come depends on timing, and the last bits of what a
    network computes depend on what is computed beside it. Keeps the results until they are dropped.

    Args:
        scorer: of this worker; on a GPU its kernels go to a stream of their own.
        decode: from token ids to text.
        device: the worker's.
        on_error: worker.reward.on_scorer_error.
        timeout: seconds in which results have to come.
    """

    def __init__(
        self,
        scorer: Scorer,
        decode: Callable[[Sequence[int]], str],
        device: torch.device,
        on_error: str = "raise",
        timeout: float = 3600.0,
    ) -> None:
        self.scorer, self.decode, self.on_error, self.timeout = scorer, decode, on_error, timeout
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._batches: dict[int, tuple[int, ...]] = {}  # uid -> its batch, until that is handed over
        self._waiting: dict[int, PendingGroup] = {}
        self._prepared: dict[int, Any] = {}  # uid -> what the scorer made of its example
        self._results: dict[int, PendingGroup] = {}
        self.registered, self.submitted, self.scored = 0, 0, 0  # groups of the last `register`

    def register(self, uids: Sequence[int]) -> None:
        """Announces the uids of groups to come, in the order in which they are batched."""
        self.registered, self.submitted, self.scored = len(uids), 0, 0
        for first in range(0, len(uids), SCORE_BATCH):
            batch = tuple(uids[first : first + SCORE_BATCH])
            self._batches |= dict.fromkeys(batch, batch)

    def prepare(self, uid: int, example: Example) -> None:
        """Has the scorer compute what depends on the example alone; an error comes back with the group's result."""
        if hasattr(self.scorer, "prepare"):
            self.thread.submit(self._prepare, uid, example)

    def submit(self, group: PendingGroup) -> None:
        """Takes a group that was registered; hands its batch to the scorer once that is complete."""
        self._waiting[group.uid] = self._results[group.uid] = group
        self.submitted += 1
        batch = self._batches[group.uid]
        if all(uid in self._waiting for uid in batch):
            self.thread.submit(self._score, [self._waiting.pop(uid) for uid in batch])
            for uid in batch:
                del self._batches[uid]

    def progress(self) -> dict[str, tuple[int, int]]:
        """How many of the groups that were last registered are generated, and how many scored: phase -> (done, all)."""
        return {"generation": (self.submitted, self.registered), "scoring": (self.scored, self.registered)}

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Calls a function in the thread, on its stream: for what uses the scorer's tracker."""

        def on_stream() -> T:
            with torch.cuda.stream(self.stream) if self.stream else nullcontext():
                return function(*args)

        return self.thread.submit(on_stream).result()

    def results(self, uids: Sequence[int]) -> list[GroupResult]:
        """Waits for those results that are here; raises the scorer's error with the sample's name, and TimeoutError
        after `timeout` seconds.
        """
        deadline = time.monotonic() + self.timeout
        return [self._result(self._results[uid], deadline) for uid in uids if uid in self._results]

    def _result(self, group: PendingGroup, deadline: float) -> GroupResult:
        try:
            return group.result.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if group.result.done():  # the scorer's own TimeoutError
                raise
            faulthandler.dump_traceback(2)  # stderr
            limit = f"trainer.phase_timeout={self.timeout:.0f} s; the worker's log has the stacks of its threads"
            raise TimeoutError(f"{group.example.sample_id}: its responses were not scored within {limit}") from None

    def wait(self) -> None:
        """Waits until nothing is being scored; raises as `results`."""
        self.results(list(self._results))

    def drop(self, uids: Sequence[int]) -> None:
        """Forgets results, and what was prepared and not used."""
        for uid in uids:
            self._results.pop(uid, None)
            self._prepared.pop(uid, None)

    def _score(self, groups: Sequence[PendingGroup]) -> None:
        """In the thread: gives each group its result or its error, whatever is raised, so that nobody waits for
        ever.
        """
        try:
            self._finish(groups)
        except BaseException as error:  # SystemExit too, which would end this thread without a word
            for group in groups:
                if not group.result.done():
                    group.result.set_exception(_named(group, error))
        self.scored += len(groups)

    def _prepare(self, uid: int, example: Example) -> None:
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            try:
                self._prepared[uid] = self.scorer.prepare(example)  # type: ignore[attr-defined]  # see `prepare`
            except BaseException as error:
                self._prepared[uid] = error

    def _finish(self, groups: Sequence[PendingGroup]) -> None:
        texts = [[self.decode(response.ids) for response in group.completions.all] for group in groups]
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            for group, answers, scores in zip(groups, texts, self._scores(groups, texts), strict=True):
                try:
                    if isinstance(scores, BaseException):
                        raise _named(group, scores)
                    group.set_scores(answers, scores)
                except Exception as error:
                    if self.on_error == "raise":
                        group.result.set_exception(error)
                    else:
                        log.warning("%s; its group is left out (worker.reward.on_scorer_error=skip)", error)
                        group.set_nan(answers)

    def _scores(
        self, groups: Sequence[PendingGroup], texts: Sequence[Sequence[str]]
    ) -> Iterator[Sequence[ResponseScore] | BaseException]:
        """Of each group, or why it has none."""
        examples = [self._prepared.pop(group.uid, group.example) for group in groups]
        whole = all(not isinstance(example, BaseException) for example in examples)
        if len(groups) > 1 and whole and isinstance(self.scorer, BatchScorer):
            try:
                found = self.scorer.score_groups(list(zip(examples, texts)))
            except BaseException as error:
                log.warning("a batch of groups could not be scored (%r): each is scored alone", error)
            else:
                yield from found
                return
        for example, answers in zip(examples, texts):
            try:
                scores = example if isinstance(example, BaseException) else self.scorer.score(example, answers)
            except BaseException as error:
                scores = error
            yield scores


def _named(group: PendingGroup, error: BaseException) -> RuntimeError:
    """The error with the sample's name."""
    named = RuntimeError(
        f"{group.example.sample_id}: its responses could not be scored: {type(error).__name__}: {error}"
    )
    named.__cause__ = error
    return named
