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
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ijson
from tqdm import tqdm

from veason import masks
from veason.data.safe_pickle import load_plain
from veason.data.sample import VideoSample
from veason.data.track_store import TrackStore, build_once, connect, index_path, pack_rles, unpack_rles
from veason.errors import DataError
from veason.files import atomic_path, check_file

MAX_DEPTH = 100  # of brackets; a mask_dict.json has four
FORMAT = 5  # to be raised when the layout below changes: older files are then rebuilt
SCHEMA = """
CREATE TABLE source (format INTEGER, size INTEGER, mtime_ns INTEGER, summaries INTEGER);
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
        damage: why a mask cannot be read or decoded, with its frame; None when all can. The masks of a damaged track
            must not be merged or compared, and one that cannot be read is None.
    """

    frames: int
    present: int
    size: tuple[int, int] | None
    damage: str | None = None


class MaskIndex(TrackStore):
    """Read-only mapping from an annotation id to its list of RLEs."""

    @classmethod
    def open(cls, source: str | os.PathLike[str], progress: bool = True) -> MaskIndex:
        """The index of `source`, built first if there is none or if the source has changed.

        Args:
            source: a JSON object {id: [RLE or null per frame]}, or {id: {"masks_rle": [...]}}; or a pickle of one
                (`.pkl`), which is read as plain data alone, and whole.
            progress: show a bar while building.

        Raises:
            DataError: the source is missing or no such JSON, or the index cannot be written (read-only folder, full
                disk).
        """
        source = Path(source)
        check_file(source, "mask file")
        path = index_path(source)
        build_once(path, source, lambda: _is_current(path, source), lambda: _build(path, source, progress))
        return cls(path, source)

    def __getitem__(self, track_id: str) -> list[masks.Rle | None]:
        query = "SELECT packed FROM tracks WHERE number = (SELECT rowid FROM summaries WHERE id = ?)"
        rows = self.query(query, (str(track_id),))
        if not rows and track_id not in self:
            raise DataError(f"{self.source} has no masks for id {track_id!r}")
        if not rows or (track := unpack_rles(rows[0][0])) is None:
            raise self.unreadable(f"the masks of id {track_id!r} are damaged")
        return track

    def __contains__(self, track_id: str) -> bool:
        return str(track_id) in self.summaries

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)

    @cached_property
    def summaries(self) -> dict[str, TrackSummary]:
        """Every id with its `TrackSummary`, in the order of the source."""
        rows = self.query("SELECT id, frames, present, height, width, damage FROM summaries ORDER BY rowid")
        if self.query("SELECT summaries FROM source") != [(_checksum(rows),)]:
            raise self.unreadable("its summaries are damaged")
        return {
            name: TrackSummary(frames, present, None if height is None else (height, width), damage)
            for name, frames, present, height, width, damage in rows
        }

    def track_problems(self, track_id: str, sample: VideoSample) -> list[str]:
        """What is wrong with a track of masks for a sample, as far as the summaries tell, without reading masks."""
        track = self.summaries.get(track_id)
        if track is None:
            return [f"{self.source} has no masks for id {track_id!r}"]
        if track.damage:
            return [f"{self.source}: id {track_id!r}, {track.damage}"]
        wrong = []
        if track.frames < len(sample.frames):
            wrong.append(
                f"{self.source}: id {track_id!r} has {track.frames} masks, the video has {len(sample.frames)} frames"
            )
        if track.size not in (None, (sample.height, sample.width)):
            size = "several sizes" if track.size == (0, 0) else "{}x{}".format(*track.size)
            wrong.append(
                f"{self.source}: masks of id {track_id!r} are of {size}, the frames of {sample.height}x{sample.width}"
            )
        return wrong


def _is_current(path: Path, source: Path) -> bool:
    if not path.is_file():
        return False  # or no file: the one that is built takes its place
    try:
        with contextlib.closing(connect(path)) as connection:
            built_from = connection.execute("SELECT format, size, mtime_ns FROM source").fetchone()
    except sqlite3.DatabaseError:  # not an index, or one of another layout
        return False
    state = source.stat()
    return built_from == (FORMAT, state.st_size, state.st_mtime_ns)


def _build(path: Path, source: Path, progress: bool) -> None:
    state, label, checksum = source.stat(), f"indexing {source.name}", 0
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
                summary, packed = _row(name, value)
                checksum = _checksum([summary], checksum)
                connection.execute("INSERT INTO summaries VALUES (?, ?, ?, ?, ?, ?)", summary)
                connection.execute("INSERT INTO tracks VALUES (last_insert_rowid(), ?)", (packed,))
                bar.update(position - bar.n)
        built_from = FORMAT, state.st_size, state.st_mtime_ns, checksum
        connection.execute("INSERT INTO source VALUES (?, ?, ?, ?)", built_from)
        connection.execute("COMMIT")


def _stream(source: Path) -> Iterator[tuple[str, Any, int]]:
    """The members of a JSON object one by one, each with the bytes read so far; those of a pickle with none."""
    if source.suffix == ".pkl":
        content = load_plain(source)
        if not isinstance(content, dict):
            raise DataError(f"{source} holds a {type(content).__name__}, not masks by id")
        yield from ((str(name), value, 0) for name, value in content.items())
        return
    with open(source, "rb") as file:
        if file.read(64).lstrip()[:1] != b"{":
            raise DataError(f"{source} is not a JSON object")
        file.seek(0)
        try:
            for name, value in ijson.kvitems(_DepthLimitedFile(file), "", buf_size=1 << 20, use_float=True):
                yield name, value, file.tell()
        except (ijson.JSONError, ValueError, OverflowError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{source} is cut short or not JSON, before byte {file.tell()}: {reason}") from error


class _DepthLimitedFile:
    """A file whose brackets are not nested by the thousand: ijson's memory grows with the square of the depth."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.open_braces = file, 0

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        for start in range(0, len(chunk), 1 << 16):
            part = chunk[start : start + (1 << 16)]  # no brace stands in a mask's counts
            self.open_braces += part.count(b"{") - part.count(b"}")
            if self.open_braces > MAX_DEPTH or b"[" * MAX_DEPTH in part:
                raise ValueError("brackets are nested too deeply")
        return chunk


def _row(name: str, value: Any) -> tuple[tuple[Any, ...], bytes]:
    """The summary and the packed masks of an object."""
    frames = value.get("masks_rle") if isinstance(value, dict) else value
    if not isinstance(frames, list):
        return (name, 0, 0, None, None, "it holds no list of masks"), pack_rles([])
    rles: list[masks.Rle | None] = []
    damage = None
    for number, frame in enumerate(frames):
        try:
            rles.append(masks.as_rle(frame))
        except DataError as error:
            rles.append(None)
            damage = damage or f"frame {number}: {error}"
    sizes = {tuple(rle["size"]) for rle in rles if rle is not None}
    height, width = (None, None) if not sizes else sizes.pop() if len(sizes) == 1 else (0, 0)
    if found := masks.find_damage(rles):
        damage = damage or f"frame {found[0]}: {found[1]}"
    return (name, len(rles), sum(masks.area(rle) > 0 for rle in rles), height, width, damage), pack_rles(rles)


def _checksum(summaries: Sequence[tuple[Any, ...]], start: int = 0) -> int:
    for summary in summaries:
        start = zlib.crc32(repr(summary).encode("utf-8", "backslashreplace"), start)
    return start
