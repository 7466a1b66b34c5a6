"""Progress bars with the time left, on a terminal: the steps of a run, and the phases of a step that take long."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from verl.metric_types import Progress


class ProgressBars:
    """The bars of a run; none where standard error is no terminal.

    Args:
        steps: of the whole run.
        start: of them done before.
        shown: None: where standard error is a terminal.

    Attributes:
        done: steps that are done.
    """

    def __init__(self, steps: int, start: int = 0, shown: bool | None = None) -> None:
        self.hidden = not (sys.stderr.isatty() if shown is None else shown)
        self.total, self.start, self.done = steps, start, start
        self._stages: dict[str, tqdm[Any]] = {}
        self._steps: tqdm[Any] | None = None

    def begin(self) -> None:
        """The first step begins: until now nothing is shown."""
        self.began = time.monotonic()
        self._steps = self._bar("steps", self.total, "step", initial=self.start)

    def step(self, done: int) -> None:
        """So many steps are done."""
        if self._steps is not None:
            self._steps.update(done - self.done)
            self._steps.refresh()
        self.done = done
        self.show_progress({})

    def show_progress(self, progress: Progress) -> None:
        """Shows how far phases are; one that is complete, or not named, has no bar."""
        running = {name: count for name, count in progress.items() if count[0] < count[1]}
        for name in [*self._stages]:
            bar = self._stages[name]
            if name not in running or bar.total != running[name][1] or bar.n > running[name][0]:
                self._stages.pop(name).close()
        for name, (done, total) in running.items():
            if name not in self._stages:
                self._stages[name] = self._bar(name, total, "group")
            self._stages[name].update(done - self._stages[name].n)
            self._stages[name].refresh()

    @property
    def time_left(self) -> str:
        """Until the last step at the mean speed so far, as h:mm:ss; "" before the first step and after the last."""
        if self._steps is None:
            return ""
        done, left = self.done - self.start, self.total - self.done
        return duration((time.monotonic() - self.began) / done * left) if done > 0 and left > 0 else ""

    def close(self) -> None:
        """Removes the bars."""
        self.show_progress({})
        if self._steps is not None:
            self._steps.close()

    def _bar(self, name: str, total: int, unit: str, initial: int = 0) -> tqdm[Any]:
        return tqdm(
            total=total,
            desc=name,
            unit=unit,
            initial=initial,
            leave=False,
            dynamic_ncols=True,
            disable=self.hidden,
        )


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
