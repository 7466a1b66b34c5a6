"""The forms of the benchmarks that run without a GPU."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("program", "arguments", "line"),
    [
        ("packing", ["--tiny", "--responses", "2", "--frames", "1"], "packing gains"),
        ("evaluation", ["--smoke"], "times as fast"),
        ("sft_step", ["--tiny", "--variants", "as the recipe"], "samples/s, 1 micro-batches"),
    ],
)
def test_a_small_form_runs(program, arguments, line):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{program}", *arguments], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert line in done.stdout
