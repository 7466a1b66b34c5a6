"""`veason data`: your own data.

veason data import SOURCE --output DIR      videos with masks or boxes, into the form that training reads
veason data describe DIR                    expressions for masks, written by a teacher
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from veason.registry import suggest

COMMANDS = {
    "import": "veason.importing.import_command:main",
    "describe": "training_data_construction.expression_generation:main",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of `veason data`. Returns the exit status; 2 when there is no such command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if words[0] not in COMMANDS:
        print(f"veason data: {words[0]!r} is no command{suggest(words[0], COMMANDS)}", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[words[0]].partition(":")
    return getattr(importlib.import_module(module), function)(words[1:])


if __name__ == "__main__":
    sys.exit(main())
