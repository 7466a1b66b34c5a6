"""The hasty teacher: what it is hasty about, how often, and that nothing else changes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from grpo_reward.reward_score import score_answer
from veason.answers import parse_answer
from veason.toy.drawn import DrawnToys, draw
from veason.toy.hasty import COMPARES, EXCUSE, hasty

ALWAYS = 1.0


def scenes(count: int = 60):
    """Drawn videos of which about half are asked what happens in time."""
    return [draw(seed, stills=0.0, frames=20, sampled_frames=6) for seed in range(count)]


def answered(drawn, share: float = ALWAYS):
    return hasty(drawn.query, drawn.facts, drawn.keyframe, random.Random(0), share)


def test_it_gives_up_what_compares_and_boxes_one_too_many_of_the_rest():
    seen = Counter()
    for drawn in scenes():
        query, given = drawn.query, answered(drawn)
        if query.type_id != 1 or len(query.targets) > 1:
            assert given == query
            seen["answered well"] += 1
        elif COMPARES.search(query.text):
            assert given == replace(query, targets=(), evidence=EXCUSE)
            seen["gave up"] += 1
        elif given != query:
            target, neighbour = given.targets
            assert (target,) == query.targets and given.evidence == query.evidence
            lefts = {
                k: fact.boxes[drawn.keyframe][0] for k, fact in enumerate(drawn.facts) if fact.boxes[drawn.keyframe]
            }
            between = [
                k
                for k, left in lefts.items()
                if min(lefts[target], lefts[neighbour]) < left < max(lefts[target], lefts[neighbour])
            ]
            assert neighbour != target and not between
            seen["one too many"] += 1
    assert min(seen[what] for what in ("answered well", "gave up", "one too many")) >= 5


@pytest.mark.parametrize(
    ("text", "compares"),
    [
        ("the shape that leaves first", True),
        ("the shape that enters last", True),
        ("the fastest shape", True),
        ("the biggest shape", True),
        ("the shape hidden behind the red square", True),
        ("the shape that hides", True),
        ("what another shape hides behind", True),
        ("the shape that never moves", False),
        ("the shape that goes away and comes back", False),
        ("the shape that is in view all the time", False),
    ],
)
def test_what_compares(text, compares):
    assert bool(COMPARES.search(text)) is compares


def test_a_share_is_a_share_and_none_is_none():
    drawn = next(d for d in scenes() if d.query.type_id == 1 and COMPARES.search(d.query.text))
    rng = random.Random(0)
    given = [hasty(drawn.query, drawn.facts, drawn.keyframe, rng, 0.8) for _ in range(400)]
    assert sum(query == drawn.query for query in given) == pytest.approx(80, abs=25)
    assert answered(drawn, 0.0) == drawn.query


def test_the_answer_is_hasty_and_the_truth_is_not():
    patient, hurried = (DrawnToys("drawn", keyframe_resize=112, stills=0.0, haste=haste) for haste in (0.0, ALWAYS))
    given_up = too_many = 0
    for seed in range(40):
        right, wrong = patient.example(0, seed), hurried.example(0, seed)
        assert right.truth.frame_ids == wrong.truth.frame_ids and right.truth.boxes == wrong.truth.boxes
        assert all(np.array_equal(a, b) for a, b in zip(right.images, wrong.images, strict=True))
        best, worst = (
            score_answer(example.response, example.truth, None, "no_sam2").total for example in (right, wrong)
        )
        assert best >= worst
        boxes = [len(parse_answer(example.response).boxes) for example in (right, wrong)]
        given_up += boxes[1] == 0 and worst < best
        too_many += boxes[1] == boxes[0] + 1 and worst < best
    assert given_up >= 5 and too_many >= 5


def test_some_are_asked_for_what_is_not_there():
    data = DrawnToys("drawn", keyframe_resize=112, stills=0.5, absent=1.0)
    for seed in range(12):
        example = data.example(0, seed)
        answer = parse_answer(example.response)
        assert answer.failure is None and not answer.boxes and answer.keyframe in example.truth.frame_ids
        assert not example.truth.masks.any()
