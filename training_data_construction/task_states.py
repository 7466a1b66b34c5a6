"""The state of each task, read from the journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training_data_construction.teacher_tasks import TeacherTask
from training_data_construction.teachers import TeacherError
from veason.frames import TIMESTAMP_MODES

ANSWER_KEYS = {"keyframe", "frame_ids", "text", "reason"}  # keys of every answer in the journal
MAX_ANSWERS = 3  # answers that may fail the checks before an expression is rejected


@dataclass
class TaskState:
    """Of one expression or object: open, accepted or rejected.

    Attributes:
        answers: number of journaled answers.
        accepted: the answer that passed the checks.
        reasons: why the others did not.
        refused: the server refused the request.
    """

    answers: int = 0
    accepted: str | None = None
    reasons: list[str] = field(default_factory=list)
    refused: bool = False

    @property
    def open(self) -> bool:
        """Whether it needs another answer."""
        return self.accepted is None and not self.refused and self.answers < MAX_ANSWERS

    @property
    def rejected(self) -> bool:
        """Whether it was closed without an answer that passed."""
        return self.accepted is None and not self.open

    def reopen(self) -> None:
        """Forgets the answers, so that a rejected expression is asked about again."""
        self.answers, self.accepted, self.reasons, self.refused = 0, None, [], False

    def add(self, text: str, reason: str | None, refused: bool = False) -> None:
        """Adds an answer, accepted when `reason` is None."""
        self.answers += 1
        self.refused = refused
        if reason is None:
            self.accepted = text
        else:
            self.reasons.append(reason)


def read_states(
    entries: Iterable[dict[str, Any]], tasks: Sequence[TeacherTask], coordinate_range: int | None = None
) -> dict[str, TaskState]:
    """The state of each task by sample id.

    Args:
        coordinate_range: the teacher's coordinates are from 0 to this; None if it writes no boxes.

    Raises:
        TeacherError: a journaled answer is about other frames than the task: the settings or the data have changed; or
            a line is none that this program writes.
    """
    wanted = {task.sample.sample_id: task for task in tasks}
    states = {sample_id: TaskState() for sample_id in wanted}
    for entry in entries:
        task = wanted.get(str(entry.get("sample_id")))
        if task is not None and entry.get("reopened"):
            states[entry["sample_id"]].reopen()
        if task is None or "text" not in entry:  # a line about a request
            continue
        if not entry.keys() >= ANSWER_KEYS or not isinstance(entry["text"], str):
            raise TeacherError(
                f"{entry['sample_id']}: a line of the journal is no answer that this program has written"
            )
        timestamp_mode = entry.get("timestamp_mode", entry.get("frame_index", TIMESTAMP_MODES[0]))
        shown = entry["keyframe"], entry["frame_ids"], entry.get("size"), timestamp_mode
        if shown != (task.keyframe, task.frame_ids, coordinate_range, task.timestamp_mode):
            hint = "use the same seed, sizes and data as before, or another --output"
            raise TeacherError(f"{entry['sample_id']}: the journal's answer is about other frames; {hint}")
        states[entry["sample_id"]].add(entry["text"], entry["reason"], bool(entry.get("refused")))
    return states
