"""Masks of objects over frames in one SQLite file beside their source: built once, read by many processes at once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veason import masks
from veason.errors import DataError

CHECKSUM = 4  # bytes


class TrackStore:
    """Read-only queries on the file of an index; pickles as its paths.

    Every thread of every process opens its own connection: Python keeps a connection's prepared statements, and two
    threads that run the same one get each other's rows, or none.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.path, self.source = path, source
        self._local = threading.local()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises DataError when the file is damaged or gone."""
        try:
            if getattr(self._local, "process", None) != os.getpid():  # a connection must not cross a fork
                self._local.connection, self._local.process = connect(self.path), os.getpid()
            return self._local.connection.execute(sql, tuple(values)).fetchall()
        except sqlite3.DatabaseError as error:  # a copy that was cut short, or a file that is gone
            raise self.unreadable(str(error)) from error

    def unreadable(self, reason: str) -> DataError:
        """The error of a damaged index."""
        return DataError(f"mask index {self.path} cannot be read ({reason}); remove it to have it built again")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.source)


def index_path(source: Path) -> Path:
    """The path of the index of `source`. In VEASON_INDEX_DIR the name carries a hash of the source's path."""
    folder = os.environ.get("VEASON_INDEX_DIR")
    if not folder:
        return source.with_name(source.name + ".index")
    digest = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:12]
    return Path(folder) / f"{source.stem}-{digest}.index"


def connect(path: Path) -> sqlite3.Connection:
    """A read-only connection to an index."""
    # immutable: no locks and no journal, so a read-only folder and any number of readers work; the file is never
    # changed in place
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def build_once(path: Path, source: Path, is_current: Callable[[], bool], build: Callable[[], None]) -> None:
    """Build under a lock: of many workers that start at once, one builds and the others wait for it.

    Raises:
        DataError: the index cannot be written (read-only folder, full disk), or the source holds an id twice.
    """
    if is_current():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(path.name + ".lock")):
            if not is_current():
                build()
    except sqlite3.IntegrityError as error:
        raise DataError(f"{source} holds an id twice ({error})") from error
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "make room there, or set VEASON_INDEX_DIR to a folder that can be written"
        raise DataError(f"cannot write the mask index {path}: {reason}; {hint}") from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    # not blocking: whatever lies there, a FIFO too, is opened at once
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def pack_rles(rles: Sequence[masks.Rle | None]) -> bytes:
    """A checksum, the number of masks, [T, 3] int32 of height, width and bytes of counts (-1 for None), all counts."""
    table = np.array(
        [(0, 0, -1) if rle is None else (*rle["size"], len(rle["counts"])) for rle in rles], dtype="<i4"
    ).reshape(-1, 3)
    packed = b"".join(
        [np.int32(len(rles)).tobytes(), table.tobytes(), *(rle["counts"] for rle in rles if rle is not None)]
    )
    return zlib.crc32(packed).to_bytes(CHECKSUM, "little") + packed


def unpack_rles(packed: Any) -> list[masks.Rle | None] | None:
    """What `pack_rles` was given; None where these are not the bytes that it made."""
    if not isinstance(packed, bytes) or zlib.crc32(packed[CHECKSUM:]).to_bytes(CHECKSUM, "little") != packed[:CHECKSUM]:
        return None
    packed = packed[CHECKSUM:]
    total = int(np.frombuffer(packed, "<i4", count=1)[0])
    position = 4 + 12 * total
    rles: list[masks.Rle | None] = []
    for height, width, length in np.frombuffer(packed, "<i4", count=3 * total, offset=4).reshape(-1, 3).tolist():
        if length < 0:
            rles.append(None)
            continue
        rles.append({"size": [height, width], "counts": packed[position : position + length]})
        position += length
    return rles
