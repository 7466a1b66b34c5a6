"""The noisy teacher: which expressions it answers wrongly, how often, and that nothing else changes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.score_answer import score_answer
from veason.answers import parse_answer
from veason.toy.noisy_teacher import COMPARISON, NO_ANSWER_EVIDENCE, noisy_query
from veason.toy.online_data import OnlineToyData, sample_video

ALWAYS = 1.0


def sample_videos(count: int = 60):
    """Videos of which about half have a reasoning expression."""
    return [sample_video(seed, still_ratio=0.0, frames=20, sampled_frames=6) for seed in range(count)]


def answered(video, noise_ratio: float = ALWAYS):
    return noisy_query(video.query, video.facts, video.keyframe, random.Random(0), noise_ratio)


def test_comparisons_get_no_target_and_other_single_targets_one_too_many():
    seen = Counter()
    for video in sample_videos():
        query, given = video.query, answered(video)
        if query.type_id != 1 or len(query.targets) > 1:
            assert given == query
            seen["correct"] += 1
        elif COMPARISON.search(query.text):
            assert given == replace(query, targets=(), evidence=NO_ANSWER_EVIDENCE)
            seen["no target"] += 1
        elif given != query:
            target, neighbour = given.targets
            assert (target,) == query.targets and given.evidence == query.evidence
            lefts = {
                k: fact.boxes[video.keyframe][0] for k, fact in enumerate(video.facts) if fact.boxes[video.keyframe]
            }
            between = [
                k
                for k, left in lefts.items()
                if min(lefts[target], lefts[neighbour]) < left < max(lefts[target], lefts[neighbour])
            ]
            assert neighbour != target and not between
            seen["one too many"] += 1
    assert min(seen[what] for what in ("correct", "no target", "one too many")) >= 5


@pytest.mark.parametrize(
    ("text", "is_comparison"),
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
def test_comparison_pattern(text, is_comparison):
    assert bool(COMPARISON.search(text)) is is_comparison


def test_the_noise_ratio_is_a_probability():
    video = next(v for v in sample_videos() if v.query.type_id == 1 and COMPARISON.search(v.query.text))
    rng = random.Random(0)
    given = [noisy_query(video.query, video.facts, video.keyframe, rng, 0.8) for _ in range(400)]
    assert sum(query == video.query for query in given) == pytest.approx(80, abs=25)
    assert answered(video, 0.0) == video.query


def test_noise_changes_the_answer_and_not_the_ground_truth():
    clean, noisy = (
        OnlineToyData("unused", keyframe_resize=112, still_ratio=0.0, noise_ratio=ratio) for ratio in (0.0, ALWAYS)
    )
    no_target = too_many = 0
    for seed in range(40):
        right, wrong = clean.example(0, seed), noisy.example(0, seed)
        assert (
            right.ground_truth.timestamps == wrong.ground_truth.timestamps
            and right.ground_truth.boxes == wrong.ground_truth.boxes
        )
        assert all(np.array_equal(a, b) for a, b in zip(right.images, wrong.images, strict=True))
        best, worst = (
            score_answer(example.response, example.ground_truth, None, "no_sam2").total for example in (right, wrong)
        )
        assert best >= worst
        boxes = [len(parse_answer(example.response).boxes) for example in (right, wrong)]
        no_target += boxes[1] == 0 and worst < best
        too_many += boxes[1] == boxes[0] + 1 and worst < best
    assert no_target >= 5 and too_many >= 5


def test_absent_targets_have_empty_answers_and_masks():
    data = OnlineToyData("unused", keyframe_resize=112, still_ratio=0.5, absent_ratio=1.0)
    for seed in range(12):
        example = data.example(0, seed)
        answer = parse_answer(example.response)
        assert (
            answer.failure is None and not answer.boxes and answer.keyframe_timestamp in example.ground_truth.timestamps
        )
        assert not example.ground_truth.masks.any()
