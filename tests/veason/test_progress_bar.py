"""Progress: a bar with the time left on a terminal, a few lines elsewhere, and the items as they are."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest

from veason import progress_bar
from veason.progress_bar import ConsoleProgress, no_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_are_unchanged():
    for show in (no_progress, ConsoleProgress(io.StringIO()), ConsoleProgress(Terminal())):
        assert list(show(iter("abc"), "reading", 3)) == list("abc") == list(show(iter("abc"), "reading"))


def test_a_bar_shows_the_time_left():
    stream = Terminal()
    for _ in ConsoleProgress(stream)(range(5), "tracking", 5):
        time.sleep(0.06)
    assert "tracking 100% |" in stream.getvalue() and " left" in stream.getvalue() and "5/5" in stream.getvalue()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress_bar, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_without_a_terminal_there_are_lines(monkeypatch, clock):
    monkeypatch.setattr(progress_bar, "REPORT_EVERY", 0.05)
    stream = io.StringIO()
    for _ in ConsoleProgress(stream)(range(4), "tracking", 8):
        clock.now += 0.03
    *during, last = stream.getvalue().splitlines()
    assert last == "tracking: 4, at most 8, in 0.1 s"  # not "4 of 8", as if it had been stopped
    assert len(during) == 2 and all(line.startswith("tracking: ") and line.endswith(" s left") for line in during)
    assert "\r" not in stream.getvalue()


def test_a_stage_of_unknown_length_says_how_long_it_takes(monkeypatch, clock):
    monkeypatch.setattr(progress_bar, "REPORT_EVERY", 0.02)
    stream = io.StringIO()
    for _ in ConsoleProgress(stream)(["models"], "loading the models"):
        clock.now += 0.03
    assert stream.getvalue().splitlines()[0] == "loading the models: 0 s so far"
