"""Names that come from a file: the order of numbered ones, and whether a name may become a part of a path."""

from __future__ import annotations

import re
from typing import Any

from veason.errors import DataError

MAX_BYTES = 250  # of one part of a path; file systems take 255, and a suffix is added

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[Any, ...], str]:
    """A sort key that compares runs of digits as numbers: frame2 before frame10."""
    parts = _DIGITS.split(name)  # texts at even positions, digits at odd ones
    return tuple(_number(part) if odd % 2 else part for odd, part in enumerate(parts)), name


def check_name(name: Any, what: str, folders: bool = False) -> str:
    """The name, if a path can be made of it that stays below its folder.

    Args:
        what: of what it is the name; begins the message.
        folders: whether it may name a folder in a folder, as a/b.

    Raises:
        DataError: no text, empty, absolute, with `..`, or such as no file system takes.
    """
    if not isinstance(name, str):
        raise DataError(f"{what} {name!r} is no text")
    parts = name.split("/") if folders else [name]
    fault = None
    if "\0" in name or (not folders and "/" in name):
        fault = "holds a character that a file name cannot have"
    elif any(part in ("", ".", "..") for part in parts):
        fault = "would lead out of its folder" if ".." in parts or name.startswith("/") else "has an empty part"
    elif not _is_unicode(name):
        fault = "is no valid Unicode"
    elif any(len(part.encode()) > MAX_BYTES for part in parts):
        fault = f"is longer than {MAX_BYTES} bytes"
    if fault:
        raise DataError(f"{what} {name[:80]!r} {fault}")
    return name


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold
        return False
    return True


def _number(digits: str) -> tuple[int, str]:
    """Compares as the number does; int() would refuse thousands of digits."""
    digits = digits.lstrip("0")
    return len(digits), digits
