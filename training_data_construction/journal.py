"""An append-only file of JSON lines that survives a kill at any time.

Every line is synced to disk before `append` returns. An incomplete last line is truncated when the file is opened
again. A file lock, released with the process, admits one writer.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any


class JournalError(RuntimeError):
    """The journal cannot be read or written, or is in use; the message names the file."""


class Journal:
    """Opens or creates the journal at `path`; `entries` has its existing and appended lines.

    Raises:
        JournalError: another process writes it, it is no file, or a line other than the last is invalid.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():  # opening a FIFO would wait
            raise JournalError(f"{self.path} is not a file")
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
        end = 0  # bytes of the complete lines
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("it is no object")
                entries.append(entry)
            except (ValueError, RecursionError) as error:
                if number < len(lines):
                    raise JournalError(f"{self.path}, line {number} is not valid JSON: {error}") from error
                os.ftruncate(self._file.fileno(), end)  # incomplete after a kill
                os.fsync(self._file.fileno())
                break
            end += len(line)
            if not line.endswith(b"\n"):  # complete without its line break: kept, since it may have been billed
                self._write(b"\n")
        return entries

    def append(self, entry: dict[str, Any]) -> None:
        """Appends one line and syncs it to disk.

        Raises:
            JournalError: the disk is full or unavailable; the journal is unchanged.
        """
        self._write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self.entries.append(entry)

    def _write(self, data: bytes) -> None:
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(data):  # a nearly full disk writes a part
                written += os.write(self._file.fileno(), data[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), before)
            raise JournalError(f"cannot write {self.path}: {error}") from error

    def close(self) -> None:
        """Closes the file and releases the lock."""
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
