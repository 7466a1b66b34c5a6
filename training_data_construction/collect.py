"""Asks the teacher about every expression, many at a time, and journals each answer as it comes.

An expression is open until an answer passes the checks (accepted), or three answers failed them or the server refused
it (set aside). The journal alone holds this state: killed and started again, a run asks about nothing that has an
answer in it. What was in flight at the kill is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from training_data_construction.budget import Budget, BudgetSpent, Pace
from training_data_construction.journal import Journal
from training_data_construction.teacher_checks import check_answer, tidy_answer
from training_data_construction.teacher_progress import Progress
from training_data_construction.teacher_prompts import WORKED_EXAMPLES
from training_data_construction.teacher_tasks import TeacherTask
from training_data_construction.teachers import Question, QuestionRefused, Reply, Teacher, TeacherBusy, TeacherError
from veason.errors import DataError

TROUBLES_TO_STOP = 5  # expressions in a row without any answer: the server is down, not the question


@dataclass
class Collector:
    """One run over the open tasks.

    Args:
        teacher: who answers.
        journal: where answers go; the state is read from it.
        budget, pace: what may be spent and how fast.
        workers: requests in flight.
        max_words: see `check_answer`.
        skip_bad_samples: an unreadable frame leaves its expression open instead of ending the run.
        report: called after each finished expression with its state.

    Attributes:
        stopping: why no further request is sent, once a stop was asked for or the budget is spent.
        left_open: what was wrong with expressions that got no answer; they are asked again by the next run.
    """

    teacher: Teacher
    journal: Journal
    budget: Budget
    pace: Pace
    workers: int = 32
    max_words: int = 500
    skip_bad_samples: bool = False
    report: Callable[[Progress], None] = lambda _: None
    stopping: str | None = None
    left_open: list[str] = field(default_factory=list)
    _answered: bool = False  # some request of this run was answered
    _served: bool = False  # this model has answered, now or in an earlier run
    _troubles: int = 0  # expressions in a row without an answer
    _error: BaseException | None = None

    async def run(self, tasks: Sequence[TeacherTask], progress: dict[str, Progress]) -> None:
        """Asks about every task that is open and brings its state up to date.

        Args:
            progress: by sample id what `read_progress` tells of the journal.

        Raises:
            TeacherError: no request can succeed. What is in flight is waited for and journaled first.
        """
        for entry in self.journal.entries:
            if not entry.get("refused"):
                self.budget.record(entry.get("prompt_tokens", 0) + entry.get("completion_tokens", 0))
                self._served |= entry.get("model") == self.teacher.model
        queue = iter([task for task in tasks if progress[task.sample.sample_id].open])
        while not self._answered and self.stopping is None and (task := next(queue, None)) is not None:
            await self._finish(task, progress)  # alone: a wrong key or address fails here, before anything is spent
        await asyncio.gather(*(self._work(queue, progress) for _ in range(self.workers)))
        if self._error is not None:
            raise self._error

    def stop(self, why: str) -> None:
        """Lets requests in flight end and sends no more."""
        self.stopping = self.stopping or why
        self.pace.halt()

    async def _work(self, queue: Iterator[TeacherTask], progress: dict[str, Progress]) -> None:
        while self.stopping is None and (task := next(queue, None)) is not None:
            await self._finish(task, progress)

    async def _finish(self, task: TeacherTask, progress: dict[str, Progress]) -> None:
        """Asks until the expression is accepted, set aside or left open."""
        state = progress[task.sample.sample_id]
        try:
            while state.open and await self._ask(task, state):
                pass
        except BudgetSpent as error:
            self.stop(str(error))
        except Exception as error:  # not lost: run raises it when the requests in flight are journaled
            self._error = self._error or error
            self.stop(str(error))
        if not state.open:
            self.report(state)

    async def _ask(self, task: TeacherTask, state: Progress) -> bool:
        """One answer, after however many tries, into the journal; False when there is none and the expression is left
        open.
        """
        example = (task.example + state.answers) % len(WORKED_EXAMPLES)
        question = Question(task, example, state.reasons[-1] if state.reasons else None)
        try:
            reply = await self._reply(question)
        except QuestionRefused as error:
            self._trouble(task, str(error), first=not self._served)
            self._record(question, state, Reply(""), reason=str(error), refused=True)
            return True
        except DataError as error:
            if not self.skip_bad_samples:
                raise
            self.left_open.append(f"{task.sample.sample_id}: {error}")
            return False
        if reply is None:
            return False
        self._answered, self._served, self._troubles = True, True, 0
        text = tidy_answer(reply.text)
        reason = "it was cut off at the token limit" if not reply.complete else None
        reason = reason or check_answer(text, task.keyframe, task.sample.expression, self.max_words)
        self._record(question, state, Reply(text, reply.prompt_tokens, reply.completion_tokens), reason)
        return True

    async def _reply(self, question: Question) -> Reply | None:
        """The teacher's reply; None when the tries are used up or the run is stopping."""
        sample_id, trouble = question.task.sample.sample_id, ""
        for failures in range(1, self.pace.tries + 1):
            await self.pace.gate()
            try:
                return await self._try(question)
            except TeacherBusy as error:
                trouble = str(error)
                if (
                    error.lost and not self._answered
                ):  # the very first request: the address is wrong rather than the line bad
                    raise TeacherError(trouble) from error
                if error.paid:
                    self.journal.append({"sample_id": sample_id, "lost": trouble})
                if failures < self.pace.tries:
                    await self.pace.back_off(failures, error.retry_after)
        self.left_open.append(f"{sample_id}: no answer in {self.pace.tries} tries, the last one: {trouble}")
        self._trouble(question.task, trouble, first=not self._answered)
        return None

    async def _try(self, question: Question) -> Reply | None:
        """One request within the budget; None when the run is stopping."""
        await self.budget.reserve()
        cost: int | None = None  # tokens; None while the server has done no work
        try:
            if self.stopping is not None:
                return None
            reply = await self.teacher.answer(question)
            cost = reply.prompt_tokens + reply.completion_tokens
            return reply
        except TeacherBusy as error:
            cost = 0 if error.paid else None
            raise
        finally:
            await self.budget.settle(cost)

    def _trouble(self, task: TeacherTask, words: str, first: bool) -> None:
        """An expression without an answer is its own affair; the first one, or several in a row, are the server's."""
        self._troubles += 1
        if first or self._troubles >= TROUBLES_TO_STOP:
            raise TeacherError(f"{task.sample.sample_id}: {words}")

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
