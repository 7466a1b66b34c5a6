"""An index of `mask_dict.json`, built once, opened in milliseconds, read by many processes at once.

    index = MaskIndex.open("ReVOS/mask_dict.json")
    index["1042"]            # [{"size": [720, 1280], "counts": b"..."}, None, ...], one per frame of the video

The index is one SQLite file, `mask_dict.json.index`, next to its source or in the folder that VEASON_INDEX_DIR names.
It is built by streaming (one object's masks in memory at a time), renamed when it is whole, and built again when the
source's size or time of change differs from what it was built from.

Measured on a mask_dict.json of 1.3 GB, CPU time of one core. Parsing: ijson 266 MB/s, the standard library's decoder
fed by hand 156 MB/s. Store, 140 kB an object: SQLite writes 640 MB/s and reads an object in 59 us, LMDB 360 MB/s and 11
us; taking the object's 100 RLEs apart costs 139 us either way and opening 0.1 ms, so SQLite, which needs no dependency.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import ijson
import numpy as np
from tqdm import tqdm

from veason import masks
from veason.errors import DataError
from veason.files import atomic_path

FORMAT = 3  # to be raised when the layout below changes: older files are then rebuilt
SCHEMA = """
CREATE TABLE source (format INTEGER, size INTEGER, mtime_ns INTEGER);
CREATE TABLE summaries
  (id TEXT PRIMARY KEY, frames INTEGER, present INTEGER, height INTEGER, width INTEGER, damage TEXT);
CREATE TABLE tracks (number INTEGER PRIMARY KEY, packed BLOB);
"""


class TrackSummary(NamedTuple):
    """What the index has of an object's masks without reading them.

    Attributes:
        frames: length of its list.
        present: frames in which it has at least one pixel.
        size: (height, width) of its masks; None when there are no masks, (0, 0) when they differ among themselves.
        damage: why a mask cannot be decoded, with its frame; None when all can. A damaged mask must not be merged or
            compared.
    """

    frames: int
    present: int
    size: tuple[int, int] | None
    damage: str | None = None


class MaskIndex:
    """Read-only mapping from an annotation id to its list of RLEs; pickles as its path.

    Every thread of every process opens its own connection: Python keeps a connection's prepared statements, and two
    threads that run the same one get each other's rows, or none.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.path, self.source = path, source
        self._local = threading.local()

    @classmethod
    def open(
        cls, source: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None, progress: bool = True
    ) -> MaskIndex:
        """The index of `source`, built first if there is none or if the source has changed.

        Args:
            source: a JSON object {id: [RLE or null per frame]}, or {id: {"masks_rle": [...]}}.
            folder: folder of the index; by default VEASON_INDEX_DIR, or else the source's folder.
            progress: show a bar while building.

        Raises:
            DataError: the source is missing or no such JSON, or the index cannot be written (read-only folder, full
                disk).
        """
        source = Path(source)
        if not source.is_file():
            raise DataError(f"mask file is missing: {source}")
        path = index_path(source, folder)
        if not _is_current(path, source):
            _build_once(path, source, progress)
        return cls(path, source)

    def __getitem__(self, track_id: str) -> list[masks.Rle | None]:
        rows = self._read(
            "SELECT packed FROM tracks WHERE number = (SELECT rowid FROM summaries WHERE id = ?)", (str(track_id),)
        )
        if not rows:
            raise DataError(f"{self.source} has no masks for id {track_id!r}")
        return _unpack(rows[0][0])

    def __contains__(self, track_id: str) -> bool:
        return str(track_id) in self.summaries

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)

    @cached_property
    def summaries(self) -> dict[str, TrackSummary]:
        """Every id with its `TrackSummary`, in the order of the source."""
        rows = self._read("SELECT id, frames, present, height, width, damage FROM summaries ORDER BY rowid")
        return {
            name: TrackSummary(frames, present, None if height is None else (height, width), damage)
            for name, frames, present, height, width, damage in rows
        }

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            if getattr(self._local, "process", None) != os.getpid():  # a connection must not cross a fork
                self._local.connection, self._local.process = _connect(self.path), os.getpid()
            return self._local.connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:  # a copy that was cut short, or a file that is gone
            raise DataError(
                f"mask index {self.path} cannot be read ({error}); remove it to have it built again"
            ) from error

    def __reduce__(self) -> tuple[type[MaskIndex], tuple[Path, Path]]:
        return type(self), (self.path, self.source)


def index_path(source: Path, folder: str | os.PathLike[str] | None = None) -> Path:
    """The path of the index of `source`. In a folder of its own, the name carries a hash of the source's path."""
    folder = folder or os.environ.get("VEASON_INDEX_DIR")
    if not folder:
        return source.with_name(source.name + ".index")
    digest = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:12]
    return Path(folder) / f"{source.stem}-{digest}.index"


def _connect(path: Path) -> sqlite3.Connection:
    # immutable: no locks and no journal, so a read-only folder and any number of readers work; the file is never
    # changed in place
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def _is_current(path: Path, source: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with contextlib.closing(_connect(path)) as connection:
            built_from = connection.execute("SELECT format, size, mtime_ns FROM source").fetchone()
    except sqlite3.DatabaseError:  # not an index, or one of another layout
        return False
    state = source.stat()
    return built_from == (FORMAT, state.st_size, state.st_mtime_ns)


def _build_once(path: Path, source: Path, progress: bool) -> None:
    """Build under a lock: of many workers that start at once, one builds and the others wait for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(path.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_current(path, source):
                _build(path, source, progress)
    except sqlite3.IntegrityError as error:
        raise DataError(f"{source} holds an id twice ({error})") from error
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "make room there, or set VEASON_INDEX_DIR to a folder that can be written"
        raise DataError(f"cannot write the mask index {path}: {reason}; {hint}") from error


def _build(path: Path, source: Path, progress: bool) -> None:
    state, label = source.stat(), f"indexing {source.name}"
    with atomic_path(path) as part, contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + SCHEMA)
        connection.execute("BEGIN")
        with tqdm(
            total=state.st_size,
            unit="B",
            unit_scale=True,
            desc=label,
            mininterval=1,
            disable=None if progress else True,
        ) as bar:
            for name, value, position in _stream(source):
                summary, packed = _row(name, value, source)
                connection.execute("INSERT INTO summaries VALUES (?, ?, ?, ?, ?, ?)", summary)
                connection.execute("INSERT INTO tracks VALUES (last_insert_rowid(), ?)", (packed,))
                bar.update(position - bar.n)
        connection.execute("INSERT INTO source VALUES (?, ?, ?)", (FORMAT, state.st_size, state.st_mtime_ns))
        connection.execute("COMMIT")


def _stream(source: Path) -> Iterator[tuple[str, Any, int]]:
    """The members of a JSON object one by one, each with the bytes read so far."""
    with open(source, "rb") as file:
        if file.read(64).lstrip()[:1] != b"{":
            raise DataError(f"{source} is not a JSON object")
        file.seek(0)
        try:
            for name, value in ijson.kvitems(file, "", buf_size=1 << 20, use_float=True):
                yield name, value, file.tell()
        except ijson.JSONError as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{source} is cut short or not JSON, before byte {file.tell()}: {reason}") from error


def _row(name: str, value: Any, source: Path) -> tuple[tuple[Any, ...], bytes]:
    frames = value.get("masks_rle") if isinstance(value, dict) else value
    if not isinstance(frames, list):
        raise DataError(f"{source}: id {name!r} holds no list of masks")
    rles = []
    for number, frame in enumerate(frames):
        try:
            rles.append(masks.as_rle(frame))
        except DataError as error:
            raise DataError(f"{source}: id {name!r}, frame {number}: {error}") from error
    sizes = {tuple(rle["size"]) for rle in rles if rle is not None}
    height, width = (None, None) if not sizes else sizes.pop() if len(sizes) == 1 else (0, 0)
    found = masks.find_damage(rles)
    damage = f"frame {found[0]}: {found[1]}" if found else None
    return (name, len(rles), sum(masks.area(rle) > 0 for rle in rles), height, width, damage), _pack(rles)


def _pack(rles: list[masks.Rle | None]) -> bytes:
    """The number of masks, [T, 3] int32 of height, width and bytes of counts (-1 for None), then all counts."""
    table = np.array(
        [(0, 0, -1) if rle is None else (*rle["size"], len(rle["counts"])) for rle in rles], dtype="<i4"
    ).reshape(-1, 3)
    return b"".join(
        [np.int32(len(rles)).tobytes(), table.tobytes(), *(rle["counts"] for rle in rles if rle is not None)]
    )


def _unpack(packed: bytes) -> list[masks.Rle | None]:
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
