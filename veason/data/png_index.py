"""An index of PNG annotations: each picture is read once, not at every start and for every expression.

The index is one SQLite file, `Annotations.index`, beside the folder of the annotations or in the folder that
VEASON_INDEX_DIR names. It holds the run-length masks of each object that expressions name. When PNGs have changed, by
name, size or time of change, their folder alone is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from veason import masks
from veason.data.track_store import TrackStore, build_once, connect, index_path, pack_rles, unpack_rles
from veason.errors import DataError
from veason.files import atomic_path

FORMAT = 2  # to be raised when the layout below changes: older files are then rebuilt
SCHEMA = """
CREATE TABLE source (format INTEGER, reader TEXT);
CREATE TABLE folders (name TEXT PRIMARY KEY, state TEXT);
CREATE TABLE tracks (folder TEXT, object TEXT, packed BLOB, PRIMARY KEY (folder, object));
"""
SMALL = 64  # folders that one process indexes sooner than several have started
PROCESSES = 8

ObjectMask = Callable[[np.ndarray, str], np.ndarray]  # values of a PNG, object id -> bool [H, W]


class MaskFolder(NamedTuple):
    """The PNGs of one video, and the objects in them that are asked for; `path` is relative to the annotations."""

    path: str
    frames: tuple[str, ...]
    objects: tuple[str, ...]


class PngIndex(TrackStore):
    """Read-only mapping from (folder, object id) to the object's RLEs, one a frame."""

    @classmethod
    def open(
        cls, annotations: Path, folders: Sequence[MaskFolder], object_mask: ObjectMask, numbered: bool = True
    ) -> PngIndex:
        """The index of `annotations`, with what has changed or is asked for the first time read now.

        Args:
            annotations: the folder above all `folders`.
            object_mask: an object's pixels in a PNG's values.
            numbered: of `veason.masks.read_mask`.

        Raises:
            DataError: the index cannot be written. A PNG that cannot be read is no error here: see `track`.
        """
        path, reader = index_path(annotations), f"{object_mask.__module__}.{object_mask.__qualname__}"
        states = {folder.path: _state(annotations, folder) for folder in folders}
        readable = [folder for folder in folders if states[folder.path]]

        def outdated() -> list[MaskFolder]:
            known = _known(path, reader)
            return [
                folder
                for folder in readable
                if known.get(folder.path, ("",))[0] != states[folder.path]
                or not known[folder.path][1].issuperset(folder.objects)
            ]

        def build() -> None:
            _build(path, reader, outdated(), states, _Reader(annotations, object_mask, numbered))

        build_once(path, annotations, lambda: path.is_file() and not outdated(), build)
        return cls(path, annotations)

    def track(self, folder: str, object_id: str) -> list[masks.Rle | None] | None:
        """An object's mask in each frame; None where a PNG of the folder was missing or could not be read."""
        rows = self.query("SELECT packed FROM tracks WHERE folder = ? AND object = ?", (folder, object_id))
        if not rows or rows[0][0] is None:
            return None
        if (track := unpack_rles(rows[0][0])) is None:
            raise self.unreadable(f"the masks of {folder}, object {object_id}, are damaged")
        return track


def _state(annotations: Path, folder: MaskFolder) -> str:
    """Changes when one of the PNGs does; "" where one is missing."""
    digest = hashlib.sha256()
    try:
        with os.scandir(annotations / folder.path) as entries:
            found = {entry.name: entry.stat() for entry in entries}
    except OSError:
        return ""
    for frame in folder.frames:
        file = found.get(f"{frame}.png")
        if file is None:
            return ""
        digest.update(f"{frame} {file.st_size} {file.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _known(path: Path, reader: str) -> dict[str, tuple[str, set[str]]]:
    """Folder -> its state when it was indexed, and its indexed objects; {} for no index or one of another reader."""
    if not path.is_file():
        return {}
    try:
        with contextlib.closing(connect(path)) as connection:
            if connection.execute("SELECT format, reader FROM source").fetchone() != (FORMAT, reader):
                return {}
            found: dict[str, tuple[str, set[str]]] = {
                name: (state, set()) for name, state in connection.execute("SELECT name, state FROM folders")
            }
            for name, object_id in connection.execute("SELECT folder, object FROM tracks"):
                found[name][1].add(object_id)
            return found
    except (sqlite3.DatabaseError, KeyError):  # not an index, or one of another layout
        return {}


def _build(path: Path, reader: str, folders: Sequence[MaskFolder], states: Mapping[str, str], read: _Reader) -> None:
    """Read `folders` into a copy of the index, which then replaces it."""
    kept = _known(path, reader)
    with atomic_path(path) as part:
        if kept:
            shutil.copyfile(path, part)
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as connection:
            connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
            if not kept:
                connection.executescript(SCHEMA)
                connection.execute("INSERT INTO source VALUES (?, ?)", (FORMAT, reader))
            connection.execute("BEGIN")
            tracks = read.all([_merged(folder, kept, states) for folder in folders])
            for name, found in tqdm(tracks, "indexing masks", len(folders), unit="video", mininterval=1, delay=2):
                connection.execute("DELETE FROM tracks WHERE folder = ?", (name,))
                connection.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (name, states[name]))
                rows = [(name, object_id, packed) for object_id, packed in found.items()]
                connection.executemany("INSERT INTO tracks VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")


def _merged(folder: MaskFolder, kept: Mapping[str, tuple[str, set[str]]], states: Mapping[str, str]) -> MaskFolder:
    """With the objects that another split has asked for."""
    state, objects = kept.get(folder.path, ("", set[str]()))
    if state != states[folder.path]:
        return folder
    return folder._replace(objects=tuple(sorted(objects.union(folder.objects))))


class _Reader(NamedTuple):
    """Reads folders of PNGs, many of them in several processes."""

    annotations: Path
    object_mask: ObjectMask
    numbered: bool

    def all(self, folders: Sequence[MaskFolder]) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """Folder -> object id -> its packed RLEs; None where a PNG cannot be read: who asks for it meets the error."""
        names, count = [folder.path for folder in folders], min(PROCESSES, os.cpu_count() or 1)
        if len(folders) < SMALL or count == 1:
            yield from zip(names, map(self.folder, folders))
            return
        with ProcessPoolExecutor(count, initializer=_init_worker, initargs=(self,)) as pool:
            yield from zip(names, pool.map(_read_in_worker, folders, chunksize=4))

    def folder(self, folder: MaskFolder) -> dict[str, bytes | None]:
        tracks: dict[str, list[masks.Rle | None]] = {object_id: [] for object_id in folder.objects}
        try:
            for frame in folder.frames:
                values = masks.read_mask(self.annotations / folder.path / f"{frame}.png", self.numbered)
                for object_id, track in tracks.items():
                    track.append(masks.encode(self.object_mask(values, object_id)))
        except DataError:
            return dict.fromkeys(folder.objects)
        return {object_id: pack_rles(track) for object_id, track in tracks.items()}


_reader: list[_Reader] = []  # of a worker process


def _init_worker(reader: _Reader) -> None:
    _reader.append(reader)


def _read_in_worker(folder: MaskFolder) -> dict[str, bytes | None]:
    return _reader[0].folder(folder)
