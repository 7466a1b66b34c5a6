"""Whole files or none: write beside the target, then rename; hashes of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
