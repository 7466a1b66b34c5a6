"""What libraries print while models are loaded is kept off the console, and shown where loading fails."""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from veason.library_output import quiet_loading


def make_noise() -> None:
    os.write(1, b"a C library\n")
    print("a logger", file=sys.stderr, flush=True)
    warnings.warn("deprecated", stacklevel=1)


def test_loading_is_quiet_and_the_console_is_back(capfd):
    with quiet_loading():
        make_noise()
    print("after")
    captured = capfd.readouterr()
    assert captured.out == "after\n" and captured.err == ""


def test_an_error_shows_what_was_printed(capfd):
    with pytest.raises(RuntimeError, match="out of memory"), quiet_loading():
        make_noise()
        raise RuntimeError("out of memory")
    assert "a C library" in capfd.readouterr().err
