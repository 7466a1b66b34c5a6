"""The settings of runs as text, and how those of two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, value in one, value in the other) where they differ; "-" for a key that one does not have."""
    first, second = dict(flatten(one)), dict(flatten(other))
    both = [*first, *(key for key in second if key not in first)]
    keys = [key for key in both if not any(other.startswith(f"{key}.") for other in both)]  # empty in one alone
    rows = [(key, format_setting(first.get(key, "-")), format_setting(second.get(key, "-"))) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def format_setting(value: Any) -> str:
    """A setting's value as text: null for None, true and false as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
