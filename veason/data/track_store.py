"""Masks of objects over frames in one SQLite file beside their source: built once, read by many processes at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veason import masks
from veason.errors import DataError


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
            raise DataError(
                f"mask index {self.path} cannot be read ({error}); remove it to have it built again"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.source)


def index_path(source: Path, folder: str | os.PathLike[str] | None = None) -> Path:
    """The path of the index of `source`. In a folder of its own, the name carries a hash of the source's path."""
    folder = folder or os.environ.get("VEASON_INDEX_DIR")
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
        with open(path.with_name(path.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_current():
                build()
    except sqlite3.IntegrityError as error:
        raise DataError(f"{source} holds an id twice ({error})") from error
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "make room there, or set VEASON_INDEX_DIR to a folder that can be written"
        raise DataError(f"cannot write the mask index {path}: {reason}; {hint}") from error


def pack(rles: Sequence[masks.Rle | None]) -> bytes:
    """The number of masks, [T, 3] int32 of height, width and bytes of counts (-1 for None), then all counts."""
    table = np.array(
        [(0, 0, -1) if rle is None else (*rle["size"], len(rle["counts"])) for rle in rles], dtype="<i4"
    ).reshape(-1, 3)
    return b"".join(
        [np.int32(len(rles)).tobytes(), table.tobytes(), *(rle["counts"] for rle in rles if rle is not None)]
    )


def unpack(packed: bytes) -> list[masks.Rle | None]:
    """What `pack` was given."""
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
