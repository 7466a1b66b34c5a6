"""The sentences that the toy tokenizer is trained on: prompts, expressions, reasoning and answers about made-up scenes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from veason.prompts import build_messages
from veason.toy.expressions import absent_queries, reasoning_queries, referring_queries
from veason.toy.facts import ObjectFacts
from veason.toy.scene import COLOURS, SHAPES, TEXTURES
from veason.toy.teacher import what_happens, where, why_this_frame


def toy_sentences(seed: int = 0, scenes: int = 120) -> Iterator[str]:
    """Yields the texts of `scenes` made-up scenes; the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(scenes):
        facts = [_made_up(rng) for _ in range(4)]
        yield what_happens(facts)
        for query in (*referring_queries(facts), *reasoning_queries(facts), *absent_queries(facts, rng)):
            keyframe = rng.randrange(20)
            prompt = build_messages(query.text, [keyframe])
            yield from (part["text"] for turn in prompt for part in turn["content"] if "text" in part)
            why, places = why_this_frame(facts, query, keyframe), where(facts, query, keyframe, size=500)
            yield f"<think>Step 1: The\nStep 2: {why}\nStep 3: {places}</think>"
            x, y = rng.randrange(500), rng.randrange(500)
            yield f'<answer>{{"keyframe_timestamp": {keyframe}, "bbox_2d_list": [[{x}, {y}, {x + 60}, {y + 50}]]}}</answer>'


def _made_up(rng: random.Random) -> ObjectFacts:
    """Facts that need not fit together: only the words matter."""
    sometimes = lambda value: value if rng.random() < 0.3 else None  # noqa: E731
    left, top = rng.randrange(120), rng.randrange(90)
    cover = sometimes(rng.randrange(4))
    return ObjectFacts(
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(SHAPES),
        texture=rng.choice(TEXTURES),
        radius=rng.uniform(12, 27),
        share=tuple(rng.choice((0.0, 0.5, 0.8, 1.0, 1.0)) for _ in range(20)),
        boxes=tuple((left + t, top, left + t + 30, top + 30) for t in range(20)),
        way=rng.choice(((60.0, 0.0), (-60.0, 0.0), (0.0, 60.0), (0.0, -60.0), (0.0, 0.0))),
        speed=rng.choice((0.0, 4.0, 12.0)),
        circles=rng.random() < 0.2,
        enters=sometimes(rng.randrange(1, 10)),
        leaves=sometimes(rng.randrange(10, 19)),
        gone=sometimes((4, 9)),
        hidden=() if cover is None else (rng.randrange(20),),
        behind=cover,
        covered_by=(),
    )
