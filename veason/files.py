"""Files to read that are files; files to write whole or not at all (beside the target, then renamed); their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veason.errors import DataError, MissingFileError

# By the type of st_mode: opening a FIFO waits for a writer, and a device may have no end.
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_file(path: str | os.PathLike[str], what: str) -> None:
    """Check that a path is a regular file, or a link to one, which can be read without waiting.

    Args:
        what: what the file is; begins the message.

    Raises:
        MissingFileError: there is nothing.
        DataError: it is something else, a loop of links, or a name that no file can have.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{what} is missing: {path}") from None
    except OSError as error:
        raise DataError(f"{what} cannot be read: {path} ({error.strerror})") from error
    except ValueError as error:  # a NUL byte or half a surrogate pair
        raise DataError(f"{what} cannot be read: {path} is no file's name ({error})") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{what} cannot be read: {path} is {KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file")


def read_text_file(path: str | os.PathLike[str], what: str) -> str:
    """The text of a UTF-8 file. Raises as `check_file`, and DataError when it is not UTF-8."""
    check_file(path, what)
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is not UTF-8: {path} ({error})") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; flushed to the disk and renamed to `path` at the end, removed on an error.

    A reader sees the earlier file or the new one, never a part. What a killed process left is overwritten.

    Raises:
        OSError: the folder cannot be written.
    """
    target = Path(path)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file as a whole, making its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 1, ensure_ascii: bool = True) -> None:
    """Write a JSON file as a whole, making its folder; `indent` and `ensure_ascii` are as for `json.dump`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, open(part, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=indent, ensure_ascii=ensure_ascii)
        file.write("\n")


def folder_hash(folder: str | os.PathLike[str]) -> str:
    """SHA-256 over the names and the content of a checkpoint's weights."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        digest.update(f"{path.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
