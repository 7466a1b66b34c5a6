"""The error of everything that a user can correct: files, options, data."""

from __future__ import annotations


class DataError(ValueError):
    """A file, an option, a video or an expression that cannot be used. The message is one line and names it."""


def describe(error: Exception) -> str:
    """The message of an error in one line; for an OSError the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
