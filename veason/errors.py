"""What a data set says when something on the disk is wrong."""

from __future__ import annotations


class DataError(ValueError):
    """A file, a video or an expression that cannot be used. The message is one line and names it."""
