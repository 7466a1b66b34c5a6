"""One run of a teacher over its tasks: journal, progress bar, interrupts, summary; for the programs that have one."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training_data_construction.answer_collector import AnswerCollector
from training_data_construction.budget import RateLimiter, RequestBudget
from training_data_construction.journal import Journal
from training_data_construction.task_states import TaskState, read_states
from training_data_construction.teacher_tasks import TeacherTask
from training_data_construction.teachers import Teacher

STATUS_OPEN = 3  # exit status
SILENT_SECONDS = 30.0  # seconds without a reply, after which it is said


def run_teacher(
    args: argparse.Namespace, folder: Path, tasks: Sequence[TeacherTask], teacher: Teacher, **options: Any
) -> tuple[AnswerCollector, dict[str, TaskState]]:
    """Asks the teacher about every task that is open in folder/journal.jsonl.

    Args:
        args: with those of `add_teacher_options`.
        options: further fields of the `AnswerCollector`.

    Raises:
        JournalError: the journal cannot be used. TeacherError: no request can succeed.
    """
    with Journal(folder / "journal.jsonl") as journal:
        states = read_states(journal.entries, tasks, teacher.coordinate_range)
        if args.retry_rejected:
            _reopen_rejected(journal, states)
        collector = AnswerCollector(
            teacher=teacher,
            journal=journal,
            budget=RequestBudget(args.max_requests, args.max_tokens_total),
            limiter=RateLimiter(args.tries, args.first_delay),
            workers=args.workers,
            max_words=args.max_words,
            **options,
        )
        asyncio.run(_collect(collector, tasks, states))
    return collector, states


def print_summary(
    collector: AnswerCollector, states: Mapping[str, TaskState], accepted: str, bad: Mapping[str, str] | None = None
) -> int:
    """Prints what was done.

    Args:
        accepted: what the accepted answers are, as a phrase.
        bad: sample id -> why it was skipped.

    Returns:
        0, or `STATUS_OPEN` where some are open.
    """
    still_open, rejected = (sum(getattr(state, name) for state in states.values()) for name in ("open", "rejected"))
    print(
        f"{accepted}, {rejected} rejected, {still_open} open; "
        f"{collector.budget.requests} requests and {collector.budget.tokens} tokens in total"
    )
    for title, lines in (
        ("bad samples skipped", [f"{name}: {why}" for name, why in (bad or {}).items()]),
        ("errors of open expressions", collector.open_errors),
    ):
        if lines:
            print(f"{title}: {len(lines)}\n" + "\n".join(f"  {line}" for line in lines[:10]))
    if still_open:
        print(f"stopped early ({collector.stop_reason or 'network errors'}): run the same command again to resume")
    return STATUS_OPEN if still_open else 0


def _reopen_rejected(journal: Journal, states: Mapping[str, TaskState]) -> None:
    """Journals that the rejected tasks are open again, as if nothing had been answered."""
    for sample_id, state in states.items():
        if state.rejected:
            journal.append({"sample_id": sample_id, "reopened": True})
            state.reopen()


async def _collect(collector: AnswerCollector, tasks: Sequence[TeacherTask], states: dict[str, TaskState]) -> None:
    """Runs the collector with a progress bar.

    The first interrupt waits for the requests in flight, the second does not.
    """
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        collector.stop("interrupted")
        _print_line("waiting for the requests in flight; interrupt again to abandon them")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    rejected = sum(state.rejected for state in states.values())
    closed_before = sum(not state.open for state in states.values())
    with tqdm(total=len(tasks), initial=closed_before, desc="teacher", unit="expr") as bar:

        def report(closed: TaskState) -> None:
            nonlocal rejected
            rejected += closed.accepted is None
            bar.set_postfix(
                requests=collector.budget.requests, tokens=collector.budget.tokens, rejected=rejected, refresh=False
            )
            bar.update()

        collector.report = report
        collector.limiter.report = _print_line
        waiting = asyncio.create_task(_report_silence(collector.budget))
        try:
            await collector.run(tasks, states)
        finally:
            waiting.cancel()


async def _report_silence(budget: RequestBudget) -> None:
    """Says that the run waits, each time that no reply has come for `SILENT_SECONDS` seconds."""
    while True:
        before = budget.requests
        await asyncio.sleep(SILENT_SECONDS)
        if budget.requests == before and budget.in_flight:
            _print_line(f"no reply for {SILENT_SECONDS:.0f} s; {budget.in_flight} requests in flight")


def _print_line(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
