"""Mutations by chance: a value somewhere in a JSON file becomes another, or bytes of a file are changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.data_mutations.mutation import ANY, Mutation

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3.5, 10**25, float("nan")),
    *("", "7", "../x", "\x00", "\ud800", "<|image_pad|>"),
    *([], [None], [[]], {}, {"a": None}, [0] * 50),
)
NODES, BYTES = 48, 16  # how many of each


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of keys to every value."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def change_value(root: Path, rng: Random) -> None:
    """Change one value of one file; the two annotation files stay alike."""
    name = rng.choice(["meta_expressions_train_.json"] * 3 + ["mask_dict.json", "mask_dict_foreground.json"])
    content = json.loads((root / name).read_text())
    place = rng.choice(list(_places(content)))
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = rng.choice(VALUES)
    names = [name, name.replace("train", "valid")]
    for file in names:
        (root / file).write_text(json.dumps(content))


def change_bytes(root: Path, rng: Random) -> None:
    """Change a few bytes of one file, cut it, or repeat a part of it."""
    name = rng.choice(["meta_expressions_train_.json", "mask_dict.json", "JPEGImages/a/00004.jpg"])
    raw = bytearray((root / name).read_bytes())
    start = rng.randrange(len(raw))
    kind = rng.randrange(3)
    if kind == 0:
        raw[start : start + 4] = rng.randbytes(4)
    elif kind == 1:
        del raw[start : start + rng.randrange(1, 200)]
    else:
        raw[start:start] = raw[start : start + 100]
    for file in (name, name.replace("train", "valid")):
        (root / file).write_bytes(bytes(raw))


def mutations() -> Iterator[Mutation]:
    for number in range(NODES):
        yield Mutation(f"value_by_chance_{number}", change_value, verdict=ANY)
    for number in range(BYTES):
        yield Mutation(f"bytes_by_chance_{number}", change_bytes, verdict=ANY)
