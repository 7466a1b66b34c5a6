"""Scores groups in a thread of its own while others are generated, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from verl.protocol import Example, GroupResult, GroupsScorer, Score, Scorer
from verl.workers.rollout import Completion

TOGETHER = 4  # groups that are handed to the scorer at once


@dataclass(frozen=True)
class Unscored:
    """A group as it was generated.

    Attributes:
        greedy: the response that the baseline is the score of, or none.
        result: what the driver hears of the group, once it is scored.
    """

    uid: int
    example: Example
    prompt_tokens: int
    responses: list[Completion]
    greedy: list[Completion]
    result: Future[GroupResult] = field(default_factory=Future)

    def finish(self, texts: list[str], scores: Sequence[Score]) -> GroupResult:
        """`texts` and `scores` of the responses, then of the greedy one."""
        if len(scores) != len(texts):
            raise RuntimeError(
                f"{self.example.sample_id}: the scorer gave {len(scores)} scores for {len(texts)} responses"
            )
        n = len(self.responses)
        return GroupResult(
            uid=self.uid,
            sample_id=self.example.sample_id,
            prompt_tokens=self.prompt_tokens,
            responses=texts[:n],
            response_tokens=[len(response.ids) for response in self.responses],
            truncated=[response.truncated for response in self.responses],
            totals=[float(score.total) for score in scores[:n]],
            parts=[dict(score.parts) for score in scores[:n]],
            failures=[score.failure for score in scores[:n]],
            baseline=float(scores[n].total) if self.greedy else None,
        )


class ScoringThread:
    """Hands groups to a scorer, those that were asked for together at once: in what order they come depends on the
    clock, and the last bits of what a network computes depend on what is computed beside it.

    Args:
        scorer: of this worker; on a GPU its kernels go to a stream of their own.
        decode: from token ids to text.
        device: the worker's.
    """

    def __init__(self, scorer: Scorer, decode: Callable[[Sequence[int]], str], device: torch.device) -> None:
        self.scorer, self.decode = scorer, decode
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.together: dict[int, tuple[int, ...]] = {}  # uid -> those that it is scored with
        self.waiting: dict[int, Unscored] = {}
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="score")

    def expect(self, uids: Sequence[int]) -> None:
        """Announces groups, in the order in which they are asked for."""
        for first in range(0, len(uids), TOGETHER):
            some = tuple(uids[first : first + TOGETHER])
            self.together |= dict.fromkeys(some, some)

    def submit(self, group: Unscored) -> Future[GroupResult]:
        """The result of a group that was announced; an error of the scorer comes back from it, with the sample's name."""
        self.waiting[group.uid] = group
        some = self.together[group.uid]
        if all(uid in self.waiting for uid in some):
            self.thread.submit(self._score, [self.waiting.pop(uid) for uid in some])
            for uid in some:
                del self.together[uid]
        return group.result

    def _score(self, groups: Sequence[Unscored]) -> None:
        """In the thread: gives each group its result, or the error that is in its way; nobody waits for ever."""
        try:
            self._resolve(groups)
        except Exception as error:
            for group in groups:
                if not group.result.done():
                    group.result.set_exception(error)

    def _resolve(self, groups: Sequence[Unscored]) -> None:
        texts = [[self.decode(response.ids) for response in [*group.responses, *group.greedy]] for group in groups]
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            for group, answers, scores in zip(groups, texts, self._scores(groups, texts), strict=True):
                try:
                    if isinstance(scores, Exception):
                        name = group.example.sample_id
                        raise RuntimeError(
                            f"{name}: its responses could not be scored: {type(scores).__name__}: {scores}"
                        ) from scores
                    group.result.set_result(group.finish(answers, scores))
                except Exception as error:
                    group.result.set_exception(error)

    def _scores(
        self, groups: Sequence[Unscored], texts: Sequence[Sequence[str]]
    ) -> Iterator[Sequence[Score] | Exception]:
        """Of each group, or why it has none."""
        if len(groups) > 1 and isinstance(self.scorer, GroupsScorer):
            try:
                found = self.scorer.score_groups([(group.example, answers) for group, answers in zip(groups, texts)])
            except Exception as error:
                found = [error] * len(groups)
            yield from found
            return
        for group, answers in zip(groups, texts):
            try:
                scores: Sequence[Score] | Exception = self.scorer.score(group.example, answers)
            except Exception as error:
                scores = error
            yield scores
