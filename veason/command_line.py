"""One style of command line for argparse programs: `key=value`, `--key value` and `--key=value` mean the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from veason.errors import DataError
from veason.registry import suggest


class OneLineErrorParser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, as a `DataError`, and names the option that may be meant."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        if unknown != message and unknown.startswith("-"):
            known = [name for name in self._option_string_actions if name.startswith("--")]
            message = f"{unknown.partition('=')[0]} is no option{suggest(unknown.partition('=')[0], known)}"
        raise DataError(f"{message.removeprefix('argument ')} (--help lists the options)")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with the docstring's own lines as the description, and the default of every option that takes a value."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default not in (None, argparse.SUPPRESS, []) and action.nargs != 0
        if action.help is None or not shown or "%(default)" in action.help or not action.option_strings:
            return action.help
        return f"{action.help} (%(default)s)"


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """`parser.parse_args`, which also takes `key=value` for each of the parser's options.

    An argument whose key is no option, such as a configuration override, is left as it is. Switches take `true` and
    `false`.

    Args:
        arguments: of the command line; the process's own by default.
    """
    options = parser._option_string_actions
    flags: list[str] = []
    takes_value = False  # the argument before is an option that waits for its value
    for argument in sys.argv[1:] if arguments is None else arguments:
        key, equals, value = argument.partition("=")
        option = options.get(f"--{key}") if equals and not takes_value else None
        if option is None:
            flags.append(argument)
        elif option.nargs != 0:
            flags.append(f"--{argument}")
        else:
            flags += _switch(parser, key, value)
        given = options.get(argument)
        takes_value = given is not None and given.nargs != 0
    return parser.parse_args(flags)


def _switch(parser: argparse.ArgumentParser, key: str, value: str) -> list[str]:
    """The flag of a switch, or none."""
    if value not in ("true", "false"):
        parser.error(f"{key}={value}: true or false")
    if value == "true":
        return [f"--{key}"]
    return [f"--no-{key}"] if f"--no-{key}" in parser._option_string_actions else []
