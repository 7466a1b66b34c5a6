"""Where a process's messages go: what libraries write goes to a file per process, errors also to the screen.

A worker's standard output and error are redirected as file descriptors, so that what C++ libraries (NCCL, c10d), Python
warnings and progress bars of libraries write is in the file too, whatever becomes of the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from io import TextIOWrapper
from pathlib import Path

LOG_FOLDER = "logs"  # below a run's folder
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SCREEN_FORMAT = "%(levelname)s %(name)s: %(message)s"
# Libraries that give their loggers a stream.
LIBRARIES_WITH_HANDLERS = ("ray", "transformers", "vllm", "huggingface_hub", "mlflow")


def worker_log_path(run: str | os.PathLike[str], rank: int) -> Path:
    """The file of a rank's messages."""
    return Path(run) / LOG_FOLDER / f"rank_{rank}.log"


def driver_log_path(run: str | os.PathLike[str]) -> Path:
    """The file of the driver's messages."""
    return Path(run) / LOG_FOLDER / "driver.log"


def is_library_record(record: logging.LogRecord) -> bool:
    """Whether an installed package or Python itself logged a record (a Python warning counts as the latter)."""
    return record.name == "py.warnings" or os.path.realpath(record.pathname).startswith(_library_folders())


def redirect_output(path: Path) -> None:
    """Sends everything that this process and its children write to a file, and errors that are logged to what was
    standard error as well. Appends; makes the folder.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    screen = os.fdopen(os.dup(2), "w", buffering=1)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # closed by someone
            stream.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    own = _set_up(logging.StreamHandler(sys.stderr), logging.INFO, FORMAT)
    _set_root_handlers(own, _set_up(logging.StreamHandler(screen), logging.ERROR, SCREEN_FORMAT))
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")  # its records reach the root logger like everyone's
    route_library_loggers()


@contextlib.contextmanager
def redirect_library_messages(path: Path) -> Iterator[None]:
    """In the driver: everything that is logged goes to a file. The screen gets errors, and warnings of code that is no
    installed package; progress bars of `tqdm` stay whole.
    """
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    file, screen = _LazyFileHandler(path, encoding="utf-8", delay=True), _BarHandler()
    screen.addFilter(lambda record: record.levelno >= logging.ERROR or not is_library_record(record))
    _set_root_handlers(_set_up(file, logging.INFO, FORMAT), _set_up(screen, logging.WARNING, SCREEN_FORMAT))
    route_library_loggers()
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        file.close()


def route_library_loggers() -> None:
    """Lets the records of libraries that have configured a stream of their own reach the root logger instead.

    Called again after such a library may have been imported.
    """
    for name in LIBRARIES_WITH_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)


def last_lines(path: Path, count: int = 20) -> list[str]:
    """The end of a file, [] where there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200 * count))
        return file.read().decode("utf-8", errors="replace").splitlines()[-count:]


@cache
def _library_folders() -> tuple[str, ...]:
    paths, names = sysconfig.get_paths(), ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple({os.path.join(os.path.realpath(paths[name]), "") for name in names})


def _set_up(handler: logging.Handler, level: int, form: str) -> logging.Handler:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(form))
    return handler


def _set_root_handlers(*handlers: logging.Handler) -> None:
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)


class _LazyFileHandler(logging.FileHandler):
    """Makes the file and its folder with the first record: a run that is refused leaves nothing behind."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


class _BarHandler(logging.Handler):
    """Writes above the progress bars of standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)
