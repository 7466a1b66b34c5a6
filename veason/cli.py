"""The console command `veason`: one name for the programs of the project, each of which stays runnable as a module.

veason predict clip.mp4 "the dog that is chased"
veason COMMAND --help
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from veason.registry import suggest

# command, of one word or two -> (`module:function` that takes the arguments and returns the exit status or None, what
# it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("veason.predict.command:main", "segment your own videos: masks, overlay, and a page"),
    "app": ("veason.app.command:main", "the same on a web page: watch, correct, track again, download"),
    "data import": ("veason.importing.import_command:main", "your videos with masks or boxes, as training reads them"),
    "data describe": (
        "training_data_construction.expression_generation:main",
        "have a teacher write expressions for masks",
    ),
    "audit": ("veason.audit.command:main", "check a data set before it is trained on"),
    "doctor": ("veason.doctor.command:main", "what is wrong with this machine, and what to type"),
    "report": ("eval.report.command:main", "a page about a training run or an evaluation, or about two"),
    "models": ("veason.models_command:main", "list policies and trackers to download; prepare the authors' policy"),
    "push": ("veason.hub.push:main", "upload a checkpoint or a data set to the Hugging Face Hub, with a card"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command and its arguments; those of the process by default.

    Returns:
        The exit status; 2 when there is no such command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    length = 2 if words[:1] == ["data"] else 1
    name = " ".join(words[:length])
    if not words or words[length - 1 : length] in ([], ["-h"], ["--help"], ["help"]):
        print(usage())
        return 0
    if name == "--version":
        print(f"veason {installed_version()}")
        return 0
    if name not in COMMANDS:
        print(f"veason: {name!r} is no command{suggest(name, COMMANDS)}", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name][0].partition(":")
    return getattr(importlib.import_module(module), function)(words[length:]) or 0


def usage() -> str:
    """The list of commands."""
    rows = [f"  {name:13} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["veason COMMAND [OPTIONS]", "", *rows, "", "veason COMMAND --help lists a command's options."])


def installed_version() -> str:
    """The version of the installed distribution, or `unknown`."""
    try:
        return version("open-veason-r1")
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
