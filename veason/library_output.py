"""Keeps what libraries print out of the way: into a file, while the program's own lines go to the console."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from veason.errors import DataError


@contextmanager
def redirect_descriptors(target: int) -> Iterator[int]:
    """Let file descriptors 1 and 2 lead to another one in the block, which also keeps libraries written in C quiet. The
    value is a descriptor of what standard error was; it is closed at the end.
    """
    _flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        for number in (1, 2):
            os.dup2(target, number)
        yield kept[1]
    finally:
        _flush()
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep what libraries print while models are loaded off the console; it is shown where an error leaves the block.

    The file descriptors alone are redirected: handlers of loggers that are made in the block keep a stream that lives.
    Warnings are ignored.
    """
    with tempfile.TemporaryFile() as log:
        try:
            with redirect_descriptors(log.fileno()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode("utf-8", "replace"))
            raise


@contextmanager
def quiet_libraries(log: str | Path) -> Iterator[TextIO]:
    """Send the process's standard output and error to a file; the value is a stream to the console.

    Where an error other than a `DataError` leaves the block, the console says where the file is.

    Args:
        log: the file, which is made anew.

    Raises:
        OSError: it cannot be written.
    """
    with (
        open(log, "w", buffering=1, encoding="utf-8", errors="replace") as target,
        redirect_descriptors(target.fileno()) as saved,
        os.fdopen(os.dup(saved), "w", buffering=1, encoding="utf-8", errors="replace") as console,
    ):
        try:
            with redirect_stdout(target), redirect_stderr(target), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield console
        except DataError:
            raise
        except Exception:
            print(f"what the libraries printed is in {log}", file=console, flush=True)
            raise
