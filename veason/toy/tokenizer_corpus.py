"""Training text of the toy tokenizer: prompts, expressions, reasoning and answers about random scenes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from veason.prompts import build_messages
from veason.toy.expressions import absent_queries, reasoning_queries, referring_queries
from veason.toy.facts import ObjectFacts
from veason.toy.scene import COLOURS, SHAPES, TEXTURES
from veason.toy.teacher import describe_video, explain_keyframe, locate_targets

SCENES = 120


def toy_sentences(seed: int = 0) -> Iterator[str]:
    """Yields the texts about `SCENES` random scenes, deterministic in `seed`."""
    rng = random.Random(seed)
    for _ in range(SCENES):
        facts = [_random_facts(rng) for _ in range(4)]
        yield describe_video(facts)
        for query in (*referring_queries(facts), *reasoning_queries(facts), *absent_queries(facts, rng)):
            keyframe = rng.randrange(20)
            prompt = build_messages(query.text, [keyframe])
            yield from (part["text"] for turn in prompt for part in turn["content"] if "text" in part)
            steps = explain_keyframe(facts, query, keyframe), locate_targets(facts, query, keyframe, size=500)
            yield f"<think>Step 1: The\nStep 2: {steps[0]}\nStep 3: {steps[1]}</think>"
            x, y = rng.randrange(500), rng.randrange(500)
            box = [x, y, x + 60, y + 50]
            yield f'<answer>{{"keyframe_timestamp": {keyframe}, "bbox_2d_list": [{box}]}}</answer>'


def _random_facts(rng: random.Random) -> ObjectFacts:
    """Facts that need not be consistent: only the resulting vocabulary matters."""
    sometimes = lambda value: value if rng.random() < 0.3 else None  # noqa: E731
    left, top = rng.randrange(120), rng.randrange(90)
    occluder = sometimes(rng.randrange(4))
    return ObjectFacts(
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(SHAPES),
        texture=rng.choice(TEXTURES),
        radius=rng.uniform(12, 27),
        visible_ratio=tuple(rng.choice((0.0, 0.5, 0.8, 1.0, 1.0)) for _ in range(20)),
        boxes=tuple((left + t, top, left + t + 30, top + 30) for t in range(20)),
        displacement=rng.choice(((60.0, 0.0), (-60.0, 0.0), (0.0, 60.0), (0.0, -60.0), (0.0, 0.0))),
        speed=rng.choice((0.0, 4.0, 12.0)),
        circles=rng.random() < 0.2,
        enters=sometimes(rng.randrange(1, 10)),
        leaves=sometimes(rng.randrange(10, 19)),
        absence=sometimes((4, 9)),
        hidden=() if occluder is None else (rng.randrange(20),),
        hidden_behind=occluder,
        occluders=(),
    )
