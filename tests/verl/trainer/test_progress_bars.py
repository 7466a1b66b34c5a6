"""The bars of a run: what they show, and that there are none without a terminal."""

from __future__ import annotations

import time

import pytest

from verl.trainer.progress_bars import ProgressBars, duration


def test_bars_of_steps_and_phases(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressBars(10, 2, shown=True)
    progress.begin()
    progress.show_progress({"generation": (1, 8), "scoring": (0, 8)})
    progress.show_progress({"generation": (8, 8), "scoring": (4, 8)})
    progress.step(3)
    progress.close()
    shown = capsys.readouterr().err
    assert "steps:  20%" in shown and "2/10" in shown and "steps:  30%" in shown
    assert "generation:  12%" in shown and "scoring:  50%" in shown and "group" in shown


def test_a_new_round_starts_a_new_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressBars(10, shown=True)
    progress.show_progress({"generation": (7, 8)})
    progress.show_progress({"generation": (2, 8)})
    progress.show_progress({"generation": (3, 4)})
    progress.close()
    shown = capsys.readouterr().err
    assert "generation:  88%" in shown and "generation:  25%" in shown and "generation:  75%" in shown


def test_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    progress = ProgressBars(12, 2, shown=False)
    progress.begin()
    assert progress.time_left == ""
    monkeypatch.setattr("verl.trainer.progress_bars.time.monotonic", lambda: now + 3 * 60)
    progress.step(5)
    assert progress.time_left.startswith("0:06:5") or progress.time_left == "0:07:00"
    progress.step(12)
    assert progress.time_left == ""
    progress.show_progress({"generation": (1, 8)})
    progress.close()
    assert capsys.readouterr().err == ""
    assert duration(3661.4) == "1:01:01"
