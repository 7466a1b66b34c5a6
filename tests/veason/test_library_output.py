"""What libraries print while models are loaded is kept off the console, and shown where loading fails."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, sys, warnings
from veason.library_output import quiet_loading
with quiet_loading():
    os.write(1, b"a C library\\n")
    print("a logger", file=sys.stderr)
    warnings.warn("deprecated")
    {then}
print("after")
"""


def run(then: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(then=then)], capture_output=True, text=True, check=False
    )


def test_loading_is_quiet_and_the_console_is_back():
    done = run("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "")


def test_an_error_shows_what_was_printed():
    done = run("raise RuntimeError('out of memory')")
    assert done.returncode == 1 and done.stdout == ""
    shown = done.stderr.splitlines()
    assert shown[:2] == ["a C library", "a logger"] and shown[-1] == "RuntimeError: out of memory"
