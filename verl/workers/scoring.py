"""Scores groups in a thread of its own while others are generated, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from verl.protocol import BatchScorer, Example, GroupResult, Score, Scorer
from verl.workers.rollout import Completion

T = TypeVar("T")

SCORE_BATCH = 4  # groups that are handed to the scorer at once


@dataclass(frozen=True)
class Completions:
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
    completions: Completions
    result: Future[GroupResult] = field(default_factory=Future)

    def finish(self, texts: list[str], scores: Sequence[Score]) -> None:
        """Sets the result, from the texts and scores of the responses, then of the greedy one."""
        if len(scores) != len(texts):
            name = self.example.sample_id
            raise RuntimeError(f"{name}: the scorer gave {len(scores)} scores for {len(texts)} responses")
        responses, n = self.completions.responses, len(self.completions.responses)
        result = GroupResult(
            uid=self.uid,
            sample_id=self.example.sample_id,
            prompt_tokens=self.prompt_tokens,
            responses=texts[:n],
            response_tokens=[len(response.ids) for response in responses],
            truncated=[response.truncated for response in responses],
            totals=[float(score.total) for score in scores[:n]],
            parts=[dict(score.parts) for score in scores[:n]],
            failures=[score.failure for score in scores[:n]],
            baseline=None if self.completions.greedy is None else float(scores[n].total),
        )
        self.result.set_result(result)


class ScoringThread:
    """Hands groups to a scorer in fixed batches: in what order they come depends on timing, and the last bits of what a
    network computes depend on what is computed beside it. Keeps the results until they are dropped.

    Args:
        scorer: of this worker; on a GPU its kernels go to a stream of their own.
        decode: from token ids to text.
        device: the worker's.
    """

    def __init__(self, scorer: Scorer, decode: Callable[[Sequence[int]], str], device: torch.device) -> None:
        self.scorer, self.decode = scorer, decode
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._batches: dict[int, tuple[int, ...]] = {}  # uid -> its batch, until that is handed over
        self._waiting: dict[int, PendingGroup] = {}
        self._prepared: dict[int, Any] = {}  # uid -> what the scorer made of its example
        self._results: dict[int, Future[GroupResult]] = {}
        self.expected, self.submitted, self.scored = 0, 0, 0  # groups of the last announcement

    def expect(self, uids: Sequence[int]) -> None:
        """Announces groups, in the order in which they are batched."""
        self.expected, self.submitted, self.scored = len(uids), 0, 0
        for first in range(0, len(uids), SCORE_BATCH):
            batch = tuple(uids[first : first + SCORE_BATCH])
            self._batches |= dict.fromkeys(batch, batch)

    def prepare(self, uid: int, example: Example) -> None:
        """Has the scorer compute what depends on the example alone; an error comes back with the group's result."""
        if hasattr(self.scorer, "prepare"):
            self.thread.submit(self._prepare, uid, example)

    def submit(self, group: PendingGroup) -> None:
        """Takes a group that was announced; hands its batch to the scorer once that is complete."""
        self._waiting[group.uid], self._results[group.uid] = group, group.result
        self.submitted += 1
        batch = self._batches[group.uid]
        if all(uid in self._waiting for uid in batch):
            self.thread.submit(self._score, [self._waiting.pop(uid) for uid in batch])
            for uid in batch:
                del self._batches[uid]

    def counts(self) -> dict[str, tuple[int, int]]:
        """How many of the groups that were last announced are generated, and how many scored: stage -> (done, all)."""
        return {"generation": (self.submitted, self.expected), "scoring": (self.scored, self.expected)}

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Calls a function in the thread, on its stream: for what uses the scorer's tracker."""

        def on_stream() -> T:
            with torch.cuda.stream(self.stream) if self.stream else nullcontext():
                return function(*args)

        return self.thread.submit(on_stream).result()

    def results(self, uids: Sequence[int]) -> list[GroupResult]:
        """Waits for those results that are here; raises the scorer's error with the sample's name."""
        return [self._results[uid].result() for uid in uids if uid in self._results]

    def wait(self) -> None:
        """Waits until nothing is being scored; raises as `results`."""
        self.results(list(self._results))

    def drop(self, uids: Sequence[int]) -> None:
        """Forgets results, and what was prepared and not used."""
        for uid in uids:
            self._results.pop(uid, None)
            self._prepared.pop(uid, None)

    def _score(self, groups: Sequence[PendingGroup]) -> None:
        """In the thread: gives each group its result or its error, so that nobody waits for ever."""
        try:
            self._finish(groups)
        except Exception as error:
            for group in groups:
                if not group.result.done():
                    group.result.set_exception(error)
        self.scored += len(groups)

    def _prepare(self, uid: int, example: Example) -> None:
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            try:
                self._prepared[uid] = self.scorer.prepare(example)  # type: ignore[attr-defined]  # see `prepare`
            except Exception as error:
                self._prepared[uid] = error

    def _finish(self, groups: Sequence[PendingGroup]) -> None:
        texts = [[self.decode(response.ids) for response in group.completions.all] for group in groups]
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            for group, answers, scores in zip(groups, texts, self._scores(groups, texts), strict=True):
                try:
                    if isinstance(scores, Exception):
                        what = f"{group.example.sample_id}: its responses could not be scored"
                        raise RuntimeError(f"{what}: {type(scores).__name__}: {scores}") from scores
                    group.finish(answers, scores)
                except Exception as error:
                    group.result.set_exception(error)

    def _scores(
        self, groups: Sequence[PendingGroup], texts: Sequence[Sequence[str]]
    ) -> Iterator[Sequence[Score] | Exception]:
        """Of each group, or why it has none."""
        examples = [self._prepared.pop(group.uid, group.example) for group in groups]
        whole = all(not isinstance(example, Exception) for example in examples)
        if len(groups) > 1 and whole and isinstance(self.scorer, BatchScorer):
            try:
                found = self.scorer.score_groups(list(zip(examples, texts)))
            except Exception as error:
                found = [error] * len(groups)
            yield from found
            return
        for example, answers in zip(examples, texts):
            try:
                scores = example if isinstance(example, Exception) else self.scorer.score(example, answers)
            except Exception as error:
                scores = error
            yield scores
