"""Files that are whole or not there, on the disk and not only in the kernel's cache; what a whole file looks like."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 24


class FileChecksum(NamedTuple):
    """Size in bytes and CRC-32 of a file, by which a damaged one is found."""

    size: int
    crc32: int


FileChecksums = dict[str, FileChecksum]  # path relative to a checkpoint's folder -> what the file must be


def write_text_atomically(path: Path, text: str) -> None:
    """Writes beside `path`, to the disk, then renames."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Puts a folder's entries on the disk: a file that was created or renamed is lost with the power otherwise."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> FileChecksum:
    """Puts a file on the disk, and reads what it is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return compute_checksum(path)


def compute_checksum(path: Path) -> FileChecksum:
    """Size and CRC-32, by reading the whole file."""
    size, crc32 = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size, crc32 = size + len(chunk), zlib.crc32(chunk, crc32)
    return FileChecksum(size, crc32)
