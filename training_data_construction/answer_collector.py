"""Asks the teacher about all expressions concurrently and journals each answer.

An expression is open until it is accepted (an answer passed the checks) or rejected (three answers failed them, or the
server refused the request). The journal is the only state: a run that was killed and restarted repeats only the
requests that were in flight, which count as lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from training_data_construction.budget import BudgetExhausted, RateLimiter, RequestBudget
from training_data_construction.completion import Completion
from training_data_construction.journal import Journal
from training_data_construction.reasoning_prompts import WORKED_EXAMPLES
from training_data_construction.request_log import RequestLog
from training_data_construction.task_states import TaskState
from training_data_construction.teacher_checks import check_answer, strip_thinking
from training_data_construction.teacher_tasks import TeacherTask
from training_data_construction.teachers import RequestRefused, Teacher, TeacherError, TeacherRequest, TemporaryError
from veason.errors import DataError
from veason.frames import TIMESTAMP_MODES

MAX_CONSECUTIVE_FAILURES = 5  # expressions without an answer, after which the server counts as down
MAX_REJECTED_AT_START = 20  # expressions that are rejected before any is accepted, after which no more is spent
MAX_LOST = 3  # requests about one expression in a run that may have been billed and gave no answer


class BilledCompletion(NamedTuple):
    """A completion, its request's number in the journal, and the tokens that it counts in the budget."""

    completion: Completion
    number: int
    tokens: int


def make_reasoning_request(task: TeacherTask, answers: int, reason: str | None) -> TeacherRequest:
    """The request for the reasoning, with another worked example each time.

    Args:
        answers: given so far, none of which was accepted.
        reason: why the last one was not.
    """
    return TeacherRequest(task, (task.example + answers) % len(WORKED_EXAMPLES), reason)


def check_reasoning(task: TeacherTask, text: str, max_words: int) -> str | None:
    """`check_answer` of a task."""
    return check_answer(text, task.keyframe_timestamp, task.sample.expression, max_words)


@dataclass
class AnswerCollector:
    """One run over the open tasks.

    Args:
        teacher: answers the requests.
        journal: receives the answers; the state is read from it.
        budget, limiter: how much may be spent, and how fast.
        workers: maximum number of requests in flight.
        max_words: the longest answer that is accepted.
        make_request, check: what is asked, and why an answer is not accepted; see `make_reasoning_request` and
            `check_reasoning`.
        skip_bad_samples: an unreadable frame leaves its expression open instead of ending the run.
        report: called after each finished expression with its state.

    Attributes:
        stop_reason: why no further request is sent; None while the run goes on.
        open_errors: errors of the expressions that got no answer and stay open for the next run.
    """

    teacher: Teacher
    journal: Journal
    budget: RequestBudget
    limiter: RateLimiter
    workers: int = 32
    max_words: int = 500
    make_request: Callable[[TeacherTask, int, str | None], TeacherRequest] = make_reasoning_request
    check: Callable[[TeacherTask, str, int], str | None] = check_reasoning
    skip_bad_samples: bool = False
    report: Callable[[TaskState], None] = lambda _: None
    stop_reason: str | None = None
    open_errors: list[str] = field(default_factory=list)
    _answered: bool = False  # a request of this run was answered
    _model_answered: bool = False  # this model has answered, in this run or an earlier one
    _accepted: bool = False  # an answer was accepted, in this run or an earlier one
    _failures: int = 0  # consecutive expressions without an answer
    _error: BaseException | None = None

    async def run(self, tasks: Sequence[TeacherTask], states: dict[str, TaskState]) -> None:
        """Asks about every open task and updates its state.

        Args:
            states: sample id -> state, see `read_states`.

        Raises:
            TeacherError: no request can succeed, or the first expressions are all rejected; raised after the requests
                in flight are journaled.
        """
        self.log = RequestLog(self.journal, self.budget)
        answers = [entry for entry in self.journal.entries if "text" in entry and not entry.get("refused")]
        self._model_answered = any(entry.get("model") == self.teacher.model for entry in answers)
        self._check_rejections(states)
        queue = iter([task for task in tasks if states[task.sample.sample_id].open])
        while not self._answered and self.stop_reason is None and (task := next(queue, None)) is not None:
            await self._finish(task, states)  # sequentially: a wrong key or address fails at the first request
        await asyncio.gather(*(self._work(queue, states) for _ in range(self.workers)))
        if self._error is not None:
            raise self._error

    def stop(self, why: str) -> None:
        """Sends no more requests; those in flight finish."""
        self.stop_reason = self.stop_reason or why
        self.limiter.stop()

    async def _work(self, queue: Iterator[TeacherTask], states: dict[str, TaskState]) -> None:
        while self.stop_reason is None and (task := next(queue, None)) is not None:
            await self._finish(task, states)

    async def _finish(self, task: TeacherTask, states: dict[str, TaskState]) -> None:
        """Asks until the expression is accepted or rejected, or has to stay open."""
        state = states[task.sample.sample_id]
        try:
            while state.open and await self._ask(task, state):
                pass
            self._check_rejections(states)
        except BudgetExhausted as error:
            self.stop(str(error))
        except Exception as error:  # raised by `run` after the requests in flight are journaled
            self._error = self._error or error
            self.stop(str(error))
        if not state.open:
            self.report(state)

    async def _ask(self, task: TeacherTask, state: TaskState) -> bool:
        """Journals one answer; False when there is none and the expression stays open."""
        request = self.make_request(task, state.answers, state.reasons[-1] if state.reasons else None)
        try:
            received = await self._receive(request)
        except RequestRefused as error:
            self._count_failure(task, str(error), fatal=not self._model_answered)
            self.journal.append({**self._entry(request, "", str(error)), "refused": True})
            state.add("", str(error), refused=True)
            return True
        except DataError as error:
            if not self.skip_bad_samples:
                raise
            self.open_errors.append(f"{task.sample.sample_id}: {error}")
            return False
        if received is None:
            return False
        self._answered, self._model_answered, self._failures = True, True, 0
        completion = replace(received.completion, text=strip_thinking(received.completion.text))
        reason = "it was cut off at the token limit" if not completion.complete else None
        reason = reason or self.check(task, completion.text, self.max_words)
        self._record(request, state, received._replace(completion=completion), reason)
        if completion.tokens is None and self.budget.max_tokens is not None and not self.budget.estimates:
            raise TeacherError("the server reports no usage, so --max_tokens_total cannot be held: use --max_requests")
        return True

    async def _receive(self, request: TeacherRequest) -> BilledCompletion | None:
        """The teacher's completion; None when all tries failed or the run is stopping."""
        sample_id, message, lost, failures = request.task.sample.sample_id, "", 0, 0
        while failures < self.limiter.tries and lost < MAX_LOST:
            await self.limiter.wait_until_allowed()
            try:
                return await self._try(request)
            except TemporaryError as error:
                message, lost, failures = str(error), lost + error.billed, failures + 1
                if error.no_response and not self._answered:  # at the first request: probably a wrong address
                    raise TeacherError(message) from error
                if failures < self.limiter.tries and lost < MAX_LOST:
                    await self.limiter.back_off(failures, error.retry_after, message)
        self.open_errors.append(f"{sample_id}: no answer in {failures} tries, the last one: {message}")
        self._count_failure(request.task, message, fatal=not self._answered)
        return None

    async def _try(self, request: TeacherRequest) -> BilledCompletion | None:
        """One request within the budget, journaled before and after; None when the run is stopping."""
        await self.budget.reserve()
        sample_id = request.task.sample.sample_id
        if self.stop_reason is not None:
            await self.budget.settle(None, billed=False)
            return None
        number = self.log.sent(sample_id)
        try:
            completion = await self.teacher.answer(request)
        except Exception as error:
            billed = isinstance(error, TemporaryError) and error.billed
            counted = await self.budget.settle(None, billed)
            if billed:
                self.log.lost(sample_id, number, str(error), counted)
            else:
                self.log.unbilled(sample_id, number, str(error))
            raise
        return BilledCompletion(completion, number, await self.budget.settle(completion.tokens))

    def _count_failure(self, task: TeacherTask, message: str, fatal: bool) -> None:
        """Ends the run at a fatal failure or at the last of several consecutive ones."""
        self._failures += 1
        if fatal or self._failures >= MAX_CONSECUTIVE_FAILURES:
            raise TeacherError(f"{task.sample.sample_id}: {message}")

    def _check_rejections(self, states: dict[str, TaskState]) -> None:
        """Raises TeacherError when the first expressions are all rejected: the others would be, too."""
        if self._accepted:
            return
        closed = [state for state in states.values() if not state.open]
        self._accepted = any(state.accepted is not None for state in closed)
        if not self._accepted and len(closed) >= MAX_REJECTED_AT_START:
            reasons = Counter(reason for state in closed for reason in state.reasons)
            ((reason, count),) = reasons.most_common(1)
            raise TeacherError(
                f"the first {len(closed)} expressions are all rejected, so no more is spent; {count} of "
                f"{reasons.total()} answers because {reason}. Change the model, --request_options or --max_words, then "
                "ask again with --retry_rejected"
            )

    def _record(
        self, request: TeacherRequest, state: TaskState, received: BilledCompletion, reason: str | None
    ) -> None:
        completion = received.completion
        entry = {
            **self._entry(request, completion.text, reason),
            "answered_by": completion.model,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
        }
        self.log.answered(entry, received.number, received.tokens)
        state.add(completion.text, reason)

    def _entry(self, request: TeacherRequest, text: str, reason: str | None) -> dict[str, Any]:
        entry = {
            "sample_id": request.task.sample.sample_id,
            "keyframe": request.task.keyframe,
            "frame_ids": request.task.frame_ids,
            "example": request.example,
            "model": self.teacher.model,
            "text": text,
            "reason": reason,
        }
        if request.task.timestamp_mode != TIMESTAMP_MODES[0]:
            entry["timestamp_mode"] = request.task.timestamp_mode
        return entry if self.teacher.coordinate_range is None else {**entry, "size": self.teacher.coordinate_range}
