"""One style of command line: options of argparse programs may also be written `key=value`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def parse_options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `--key value`, `--key=value` and `key=value` alike.

    A `key=value` argument whose key is no option of the parser is left as it is, for instance a configuration override.
    Switches take `true` and `false`.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    actions = {name[2:]: action for action in parser._actions for name in action.option_strings if name[:2] == "--"}
    parsed = []
    for argument in sys.argv[1:] if arguments is None else arguments:
        key, equals, value = argument.partition("=")
        action = actions.get(key) if equals else None
        if action is None:
            parsed.append(argument)
        elif action.nargs != 0:
            parsed.append(f"--{argument}")
        elif value == "true":
            parsed.append(f"--{key}")
        elif value != "false":
            parser.error(f"{argument}: true or false")
        elif f"no-{key}" in actions:
            parsed.append(f"--no-{key}")
    return parser.parse_args(parsed)
