"""Choosing by name: an entry of a table, or `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any


def load_by_name(name: str, table: Mapping[str, Any], what: str) -> Any:
    """What `name` stands for: an entry of the table, or what `package.module:name` leads to.

    An entry that is itself such a path is imported when it is asked for.

    Raises:
        ValueError: neither; the message is one line, with the nearest name and all known ones.
    """
    found = table.get(name, name)
    if not isinstance(found, str):
        return found
    module, colon, attribute = found.partition(":")
    if not colon:
        known = f"{', '.join(sorted(table))}, or package.module:name"
        raise ValueError(f"unknown {what} {name!r}{suggest(name, list(table))}; known: {known}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {name!r} cannot be imported: {error}") from error


def suggest(word: str, valid: Iterable[str]) -> str:
    """The valid word that was probably meant: " (did you mean X?)", or "" when none is near. Words may be dotted."""
    valid, leaf = list(valid), word.rsplit(".", 1)[-1]
    same_leaf = [path for path in valid if path.rsplit(".", 1)[-1] == leaf]
    found = difflib.get_close_matches(word, same_leaf or valid, n=1, cutoff=0.0 if same_leaf else 0.6)
    if not found:  # a misspelt leaf in the wrong section
        by_leaf = {path.rsplit(".", 1)[-1]: path for path in valid}
        found = [by_leaf[name] for name in difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.75)]
    return f" (did you mean {found[0]}?)" if found else ""
