"""One expression about one video, and what is checked of its files."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from veason.errors import DataError, printable
from veason.files import check_file

MIX_SEPARATOR = ":"  # in a sample id of `data.mix`, between the set's label and the id


class VideoSample(NamedTuple):  # cheap to make: a training set has tens of thousands
    """One expression about one video.

    Attributes:
        sample_id: `<video>/<exp_id>`, unique in its benchmark, named in every error.
        expression: as in the annotation.
        frame_dir: the folder of the video's frames.
        frames: names of the frames without suffix, in natural order; their position is their index.
        height, width: of the frames, in pixels.
        type_id: 0 referring, 1 reasoning, 2 the target is not in the video; None where it is not given.
        object_ids: annotation ids of the targets; () when they are absent or not given.
        category: the benchmark's own kind of expression, such as "static"; None where it has none.
    """

    sample_id: str
    video: str
    exp_id: str
    expression: str
    frame_dir: Path
    frames: tuple[str, ...]
    height: int
    width: int
    type_id: int | None = None
    object_ids: tuple[str, ...] = ()
    category: str | None = None

    @property
    def result_dir(self) -> str:
        """Folder of this sample's PNGs below the output folder."""
        return f"Annotations/{self.sample_id}"

    @property
    def num_objects(self) -> int:
        return len(self.object_ids)


def read_json(path: Path, what: str = "annotation file") -> Any:
    """The content of a JSON file.

    Args:
        what: what the file is; begins the message.

    Raises:
        MissingFileError: there is none.
        DataError: it is broken, no file, or has a key twice, of which a reader would drop one.
    """
    check_file(path, what)
    try:
        with open(path, encoding="utf-8") as file:
            start = file.read(64).strip()
            if start and start[0] not in '{["-0123456789tfn':  # told before gigabytes of zeros are read
                raise ValueError(f"it begins with {start[:20]!r}")
            file.seek(0)
            return json.load(file, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:  # broken, a number of thousands of digits, thousands of brackets
        raise DataError(f"{what} is not JSON: {path} ({error})") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members. Raises ValueError when a key stands there twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return members


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """No garbage collection inside: making tens of thousands of objects that all stay would start it repeatedly."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def missing_files(folder: Path, names: Iterable[str], suffix: str, what: str) -> list[str]:
    """The files of `names` that a folder lacks, in at most one line: "frame is missing: a/4.jpg (and 2 more)"."""
    try:
        present = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return [printable(f"{what} folder is missing: {folder}")]
    except (OSError, ValueError) as error:  # a loop of links, a NUL byte
        return [printable(f"{what} folder cannot be read: {folder} ({getattr(error, 'strerror', error)})")]
    wanted = [name + suffix for name in names]
    if present.issuperset(wanted):
        return []
    missing = [name for name in wanted if name not in present]
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return [printable(f"{what} is missing: {folder / missing[0]}{more}")]
