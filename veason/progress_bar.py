"""Progress of a stage on the console: done, total, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")
REPORT_EVERY = 10.0  # seconds between two lines where there is no terminal
BAR = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt}, {elapsed} passed, {remaining} left"


class Progress(Protocol):
    """Shows how far an iterable of a stage has come."""

    def __call__(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterable[T]:
        """`items`, unchanged; `total` where it is known before (an upper bound will do)."""


def no_progress(items: Iterable[T], stage: str, total: int | None = None) -> Iterable[T]:  # noqa: ARG001
    """A `Progress` that shows nothing."""
    return items


class ConsoleProgress:
    """A bar with the time left of each stage on a terminal; elsewhere a line every ten seconds and one at its end."""

    def __init__(self, stream: Any = None) -> None:
        self.stream = stream or sys.stderr

    def __call__(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        if self.stream.isatty():
            bar_format = BAR if total else "{desc} {elapsed} passed"
            return iter(tqdm(items, stage, total, file=self.stream, mininterval=0.2, bar_format=bar_format))
        return self._lines(items, stage, total)

    def _lines(self, items: Iterable[T], stage: str, total: int | None) -> Iterator[T]:
        start = reported = time.perf_counter()
        count, of_total = 0, f" of {total}" if total else ""
        for count, item in enumerate(items, start=1):
            yield item
            now = time.perf_counter()
            if now - reported >= REPORT_EVERY:
                reported = now
                left = f", about {(now - start) / count * max(0, total - count):.0f} s left" if total else ""
                done = f"{count}{of_total}{left}" if total else f"{now - start:.0f} s so far"
                print(f"{stage}: {done}", file=self.stream, flush=True)
        bound = of_total if count == total else f", at most {total}"
        done = f"{count}{bound}, in " if total else ""
        print(f"{stage}: {done}{time.perf_counter() - start:.1f} s", file=self.stream, flush=True)
