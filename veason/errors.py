"""The error of everything that a user can correct: files, options, data."""

from __future__ import annotations


class DataError(ValueError):
    """A file, an option, a video or an expression that cannot be used.

    The message is one printable line and names it: what stands in a data set cannot break a log or a report.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class OptionError(DataError):
    """An option that what is chosen by name does not take, or one that it needs: wrong on every machine."""


class MissingFileError(DataError):
    """A file is missing."""


def printable(text: str) -> str:
    """The text in one line that every terminal and file takes: other characters are escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def describe(error: Exception) -> str:
    """The message of an error in one line; for an OSError the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f"{error.filename}: {error.strerror}")
    return printable(str(error))
