"""An append-only file of JSON lines that survives being killed at any moment.

Every line is on the disk (fsync) before `append` returns. A line that a kill cut short stands at the end, without its
line break: it is cut off when the file is opened again. One process writes at a time, held by a lock that the system
lets go of with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any


class JournalError(RuntimeError):
    """The journal cannot be read, written or is in use; the message names the file."""


class Journal:
    """Opens or creates the journal at `path`; `entries` are the lines found in it, then those appended.

    Raises:
        JournalError: another process writes it, or a line other than the last is damaged.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise JournalError(f"{self.path} is being written by another run") from error
        _sync_folder(self.path.parent)
        self.entries = self._recover()

    def _recover(self) -> list[dict[str, Any]]:
        lines = self.path.read_bytes().splitlines(keepends=True)
        entries: list[dict[str, Any]] = []
        end = 0  # bytes of the whole lines
        for number, line in enumerate(lines, start=1):
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise JournalError(f"{self.path}, line {number} is damaged: {error}") from error
                os.ftruncate(self._file.fileno(), end)  # torn by a kill
                os.fsync(self._file.fileno())
                break
            end += len(line)
            if not line.endswith(b"\n"):  # complete but for its line break: kept, since it may have been paid for
                self._write(b"\n")
        return entries

    def append(self, entry: dict[str, Any]) -> None:
        """Adds one line; it is on the disk when this returns.

        Raises:
            JournalError: the disk is full or gone; the journal is left as it was.
        """
        self._write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self.entries.append(entry)

    def _write(self, data: bytes) -> None:
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(data):  # a nearly full disk takes a part
                written += os.write(self._file.fileno(), data[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), before)
            raise JournalError(f"cannot write {self.path}: {error}") from error

    def close(self) -> None:
        """Closes the file and lets go of the lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
