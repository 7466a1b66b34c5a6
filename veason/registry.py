"""Names and `package.module:name` paths: one way to choose a benchmark, a tracker, a rule or a teacher."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from veason.errors import DataError, OptionError


def load_by_name(name: str, table: Mapping[str, Any], kind: str) -> Any:
    """The object behind a short name of `table`, or behind a `package.module:name` path.

    Args:
        table: short name -> path, or the object itself.
        kind: the key or option that the name was given for; begins the message.

    Raises:
        DataError: neither, in one line; the nearest known name is given.
    """
    found = table.get(name, name)
    if not isinstance(found, str):
        return found
    module, colon, attribute = found.partition(":")
    if not colon:
        raise DataError(f"{kind}: {name!r} is unknown{suggest(name, table)} (or give package.module:name)")
    try:
        target = importlib.import_module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{kind}: {found} cannot be imported ({error})") from error
    return target


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that it may mean, or all of them."""
    known = list(known)
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose {', '.join(known) or 'none'}"


def check_arguments(
    call: Callable[..., Any],
    options: Mapping[str, Any],
    key: str,
    given: Sequence[str] = (),
    also: Sequence[str] = (),
) -> None:
    """Check the options that a class or a function is to be called with.

    Args:
        key: of the options in the configuration; begins the message.
        given: arguments that it is given besides the options.
        also: options that are taken, and read elsewhere.

    Raises:
        OptionError: it does not take an option (the nearest one and all others are named), or an option that it needs
            is not set.
    """
    parameters = {name: item for name, item in inspect.signature(call).parameters.items() if name not in given}
    named = {
        name: item for name, item in parameters.items() if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    if not any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
        taken = [*also, *(name for name in named if name not in also)]
        for option in options:
            if option not in taken:
                near = get_close_matches(option, taken, n=1)
                meant = f"did you mean {near[0]}? " if near else ""
                raise OptionError(f"{key}.{option} is unknown; {meant}options: {', '.join(taken) or 'none'}")
    for name, item in named.items():
        if item.default is item.empty and name not in options:
            raise OptionError(f"{key}.{name} is not set")
