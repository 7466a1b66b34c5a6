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
def quiet_loading() -> Iterator[None]:
    """Keep what libraries print while models are loaded off the console; it is shown where an error leaves the block.

    The file descriptors alone are redirected: handlers of loggers that are made in the block keep a stream that lives.
    Warnings are ignored.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    failed = True
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
            failed = False
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, saved in enumerate(kept, start=1):
                os.dup2(saved, number)
                os.close(saved)
            if failed:
                log.seek(0)
                sys.stderr.write(log.read().decode("utf-8", "replace"))


@contextmanager
def quiet_libraries(log: str | Path) -> Iterator[TextIO]:
    """Send the process's standard output and error to a file; the value is a stream to the console.

    The file descriptors are redirected, so that libraries written in C are quiet too. Where an error other than a
    `DataError` leaves the block, the console says where the file is.

    Args:
        log: the file, which is made anew.

    Raises:
        OSError: it cannot be written.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    target = open(log, "w", buffering=1, encoding="utf-8", errors="replace")  # noqa: SIM115
    console = os.fdopen(os.dup(kept[1]), "w", buffering=1, encoding="utf-8", errors="replace")
    try:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
        with redirect_stdout(target), redirect_stderr(target), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield console
    except DataError:
        raise
    except Exception:
        print(f"what the libraries printed is in {log}", file=console, flush=True)
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)
        target.close()
        console.close()
