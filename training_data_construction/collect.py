"""Asks the teacher about all expressions concurrently and journals each answer.

An expression is open until it is accepted (an answer passed the checks) or rejected (three answers failed them, or the
server refused the question). The journal is the only state: a run that was killed and restarted repeats only the
requests that were in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from training_data_construction.budget import Budget, BudgetExhausted, RateLimiter
from training_data_construction.journal import Journal
from training_data_construction.teacher_checks import check_answer, strip_thinking
from training_data_construction.teacher_progress import Progress
from training_data_construction.teacher_prompts import WORKED_EXAMPLES
from training_data_construction.teacher_tasks import TeacherTask
from training_data_construction.teachers import Question, QuestionRefused, Reply, Teacher, TeacherError, TemporaryError
from veason.errors import DataError

MAX_CONSECUTIVE_FAILURES = 5  # expressions without an answer, after which the server counts as down


def next_question(task: TeacherTask, answers: int, reason: str | None) -> Question:
    """The question about the reasoning, with another worked example each time.

    Args:
        answers: given so far, none of which was accepted.
        reason: why the last one was not.
    """
    return Question(task, (task.example + answers) % len(WORKED_EXAMPLES), reason)


def check_reasoning(task: TeacherTask, text: str, max_words: int) -> str | None:
    """`check_answer` of a task."""
    return check_answer(text, task.keyframe, task.sample.expression, max_words)


@dataclass
class Collector:
    """One run over the open tasks.

    Args:
        teacher: answers the questions.
        journal: receives the answers; the state is read from it.
        budget, limiter: how much may be spent, and how fast.
        workers: maximum number of requests in flight.
        max_words: the longest answer that is accepted.
        make_question, check: what is asked, and why an answer is not accepted; see `next_question` and
            `check_reasoning`.
        skip_bad_samples: an unreadable frame leaves its expression open instead of ending the run.
        report: called after each finished expression with its state.

    Attributes:
        stop_reason: why no further request is sent; None while the run goes on.
        open_errors: errors of the expressions that got no answer and stay open for the next run.
    """

    teacher: Teacher
    journal: Journal
    budget: Budget
    limiter: RateLimiter
    workers: int = 32
    max_words: int = 500
    make_question: Callable[[TeacherTask, int, str | None], Question] = next_question
    check: Callable[[TeacherTask, str, int], str | None] = check_reasoning
    skip_bad_samples: bool = False
    report: Callable[[Progress], None] = lambda _: None
    stop_reason: str | None = None
    open_errors: list[str] = field(default_factory=list)
    _answered: bool = False  # a request of this run was answered
    _model_answered: bool = False  # this model has answered, in this run or an earlier one
    _failures: int = 0  # consecutive expressions without an answer
    _error: BaseException | None = None

    async def run(self, tasks: Sequence[TeacherTask], progress: dict[str, Progress]) -> None:
        """Asks about every open task and updates its state.

        Args:
            progress: sample id -> state, see `read_progress`.

        Raises:
            TeacherError: no request can succeed; raised after the requests in flight are journaled.
        """
        for entry in self.journal.entries:
            if not entry.get("refused"):
                self.budget.record(entry.get("prompt_tokens", 0) + entry.get("completion_tokens", 0))
                self._model_answered |= entry.get("model") == self.teacher.model
        queue = iter([task for task in tasks if progress[task.sample.sample_id].open])
        while not self._answered and self.stop_reason is None and (task := next(queue, None)) is not None:
            await self._finish(task, progress)  # sequentially: a wrong key or address fails at the first request
        await asyncio.gather(*(self._work(queue, progress) for _ in range(self.workers)))
        if self._error is not None:
            raise self._error

    def stop(self, why: str) -> None:
        """Sends no more requests; those in flight finish."""
        self.stop_reason = self.stop_reason or why
        self.limiter.stop()

    async def _work(self, queue: Iterator[TeacherTask], progress: dict[str, Progress]) -> None:
        while self.stop_reason is None and (task := next(queue, None)) is not None:
            await self._finish(task, progress)

    async def _finish(self, task: TeacherTask, progress: dict[str, Progress]) -> None:
        """Asks until the expression is accepted or rejected, or has to stay open."""
        state = progress[task.sample.sample_id]
        try:
            while state.open and await self._ask(task, state):
                pass
        except BudgetExhausted as error:
            self.stop(str(error))
        except Exception as error:  # raised by `run` after the requests in flight are journaled
            self._error = self._error or error
            self.stop(str(error))
        if not state.open:
            self.report(state)

    async def _ask(self, task: TeacherTask, state: Progress) -> bool:
        """Journals one answer; False when there is none and the expression stays open."""
        question = self.make_question(task, state.answers, state.reasons[-1] if state.reasons else None)
        try:
            reply = await self._reply(question)
        except QuestionRefused as error:
            self._count_failure(task, str(error), fatal=not self._model_answered)
            self._record(question, state, Reply(""), reason=str(error), refused=True)
            return True
        except DataError as error:
            if not self.skip_bad_samples:
                raise
            self.open_errors.append(f"{task.sample.sample_id}: {error}")
            return False
        if reply is None:
            return False
        self._answered, self._model_answered, self._failures = True, True, 0
        text = strip_thinking(reply.text)
        reason = "it was cut off at the token limit" if not reply.complete else None
        reason = reason or self.check(task, text, self.max_words)
        self._record(question, state, Reply(text, reply.prompt_tokens, reply.completion_tokens), reason)
        return True

    async def _reply(self, question: Question) -> Reply | None:
        """The teacher's reply; None when all tries failed or the run is stopping."""
        sample_id, message = question.task.sample.sample_id, ""
        for failures in range(1, self.limiter.tries + 1):
            await self.limiter.wait_until_allowed()
            try:
                return await self._try(question)
            except TemporaryError as error:
                message = str(error)
                if error.no_response and not self._answered:  # at the first request: probably a wrong address
                    raise TeacherError(message) from error
                if error.billed:
                    self.journal.append({"sample_id": sample_id, "lost": message})
                if failures < self.limiter.tries:
                    await self.limiter.back_off(failures, error.retry_after)
        self.open_errors.append(f"{sample_id}: no answer in {self.limiter.tries} tries, the last one: {message}")
        self._count_failure(question.task, message, fatal=not self._answered)
        return None

    async def _try(self, question: Question) -> Reply | None:
        """One request within the budget; None when the run is stopping."""
        await self.budget.reserve()
        cost: int | None = None  # tokens; None: not billed
        try:
            if self.stop_reason is not None:
                return None
            reply = await self.teacher.answer(question)
            cost = reply.prompt_tokens + reply.completion_tokens
            return reply
        except TemporaryError as error:
            cost = 0 if error.billed else None
            raise
        finally:
            await self.budget.settle(cost)

    def _count_failure(self, task: TeacherTask, message: str, fatal: bool) -> None:
        """Ends the run at a fatal failure or at the last of several consecutive ones."""
        self._failures += 1
        if fatal or self._failures >= MAX_CONSECUTIVE_FAILURES:
            raise TeacherError(f"{task.sample.sample_id}: {message}")

    def _record(
        self, question: Question, state: Progress, reply: Reply, reason: str | None, refused: bool = False
    ) -> None:
        entry = {
            "sample_id": question.task.sample.sample_id,
            "keyframe": question.task.keyframe,
            "frame_ids": question.task.frame_ids,
            "example": question.example,
            "model": self.teacher.model,
            "text": reply.text,
            "reason": reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }
        if self.teacher.size is not None:
            entry["size"] = self.teacher.size
        self.journal.append(entry | ({"refused": True} if refused else {}))
        state.add(reply.text, reason, refused)
