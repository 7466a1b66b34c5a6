"""What a data set says when something on the disk is wrong."""

from __future__ import annotations


class DataError(ValueError):
    """A file, a video or an expression that cannot be used. The message is one line and names it."""


def describe(error: Exception) -> str:
    """One line for people; of what the system refused, the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
