"""The sentences that the toy tokenizer is trained on: prompts, expressions, reasoning and answers of made-up scenes."""

from __future__ import annotations

import random
from collections.abc import Iterator

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "bar")
ACTIONS = ("moves left", "moves right", "moves up", "moves down", "stays still", "leaves first", "enters last", "hidden behind", "fastest")


def toy_sentences(seed: int = 0, count: int = 3000) -> Iterator[str]:
    """Yields `count` sentences; the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        colour, shape, action = rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(ACTIONS)
        x, y, time = rng.randrange(560), rng.randrange(560), rng.randrange(60)
        yield f"the {colour} {shape} {action}"
        yield f"<think>The {colour} {shape} {action} at {time} seconds.</think>"
        yield f'<answer>{{"keyframe_timestamp": {time}, "bbox_2d_list": [[{x}, {y}, {x + 9}, {y + 9}]]}}</answer>'
