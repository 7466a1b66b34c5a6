"""Choosing a function by its name in a table, or by `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any


def resolve(name: str, table: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """The function of that name.

    Raises:
        ValueError: no such name; the message gives the nearest one. ImportError, AttributeError: a path that leads
            nowhere.
    """
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {name!r}{hint} Known: {', '.join(sorted(table))}, or package.module:name")
