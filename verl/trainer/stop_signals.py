"""SIGTERM (preemption) and SIGINT (Ctrl-C): the step under way is finished and saved; a second signal ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedBySignal(BaseException):
    """A signal has ended the run; the message says what was saved.

    Attributes:
        status: the process's exit status: 143 after SIGTERM, 130 after SIGINT.
    """

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{signal.Signals(number).name}: {what}")
        self.status = 128 + number


class StopSignals:
    """Takes the signals of the main thread. A context manager; the handlers before it come back at its end.

    Attributes:
        requested: the signal after which the run is to stop once its step is finished; None: none came.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._finishes = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def finishing_steps(self) -> Iterator[None]:
        """In the block a first signal waits for the end of the step, where the loop looks for it."""
        self._finishes = True
        try:
            yield
        finally:
            self._finishes = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self._finishes or self.requested is not None:
            raise StoppedBySignal(number, "ended at once; the checkpoints are whole")
        self.requested = number
        name = signal.Signals(number).name
        os.write(2, f"{name}: this step is finished and saved, a second signal ends the run at once\n".encode())
