"""Errors of a run that a person can act on: each is one line that says what to do."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training that cannot go on, such as update after update that is not finite."""
