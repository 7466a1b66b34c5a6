"""Errors of a run that a person can act on: each is one line that says what to do."""

from __future__ import annotations

from collections.abc import Sequence

MAX_NAMES = 8  # samples that a message names


class TrainingError(RuntimeError):
    """Training that cannot go on, such as update after update that is not finite."""


def abbreviate(names: Sequence[str]) -> str:
    """Names for a message, the first few of many."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
