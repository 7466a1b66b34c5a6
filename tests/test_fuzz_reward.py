"""A short run of the fuzzer, hypothesis's idea of a string, and the time that reading takes."""

import json
import math
import random
import time

import pytest
from fuzz_reward import RULES, check, make_ground_truth, mutated_answer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.score_answer import score_answer
from veason.answers import format_answer, parse_answer

GROUND_TRUTH = make_ground_truth()
PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "{",
        "}",
        "[",
        "]",
        '"keyframe_timestamp":',
        '"bbox_2d_list":',
        "4,",
        " ",
    ]
)


def test_grammar():
    rng = random.Random(1)
    for _ in range(2000):
        check(mutated_answer(rng), GROUND_TRUTH)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=40).map("".join))
def test_any_string(text):
    check(text, GROUND_TRUTH)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: st.lists(x, max_size=5),
        max_leaves=30,
    )
)
def test_any_json_in_the_place_of_boxes(value):
    check(
        f'<think></think><answer>{{"keyframe_timestamp": 4, "bbox_2d_list": {json.dumps(value)}}}</answer>',
        GROUND_TRUTH,
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "keyframe_timestamp", "bbox_2d", "points_2d", "negative_points_2d"]),
            st.sampled_from([0, 4, 8, 4.0, -1, True, None, "4", 10**400, math.nan, [], [1, 2, 30, 40], [[9, 9]], [[9]]])
            | st.lists(st.lists(st.integers(-9, 99) | st.floats(), min_size=2, max_size=2), max_size=3),
        ),
        max_size=6,
    )
)
def test_any_entries_with_points(entries):
    check(f'<think></think><answer>{{"objects": {json.dumps(entries)}}}</answer>', GROUND_TRUTH)


LONG = {
    "white space behind an unclosed answer": lambda n: "<think></think><answer>" + " " * n,
    "answers that are never closed": lambda n: "<answer> " * (n // 9),
    "white space behind braces": lambda n: "<answer>{" + "}    " * (n // 5),
    "thoughts that are closed and closed": lambda n: "<think>" + "</think> " * (n // 9),
    "nested lists": lambda n: "<answer>" + "[" * (n // 2) + "]" * (n // 2) + "</answer>",
    "open braces": lambda n: '<answer>{"a":' * (n // 13),
    "one long string": lambda n: '<answer>{"keyframe_timestamp": "' + "1" * n + '"}</answer>',
    "digits": lambda n: '<answer>{"keyframe_timestamp": ' + "1" * n + "}</answer>",
    "boxes": lambda n: (
        '<answer>{"keyframe_timestamp": 4, "bbox_2d_list": [' + ",".join(["[1,2,3,4]"] * (n // 10)) + "]}</answer>"
    ),
}


@pytest.mark.parametrize("kind", LONG)
def test_time_is_linear(kind):
    def within(limit, length):
        """Whether one of some attempts is: of the others the machine may have been busy."""
        text = LONG[kind](length)
        return any(seconds(text) < limit for _ in range(50))

    def seconds(text):
        start = time.thread_time()
        for rule in RULES:
            score_answer(text, GROUND_TRUTH, lambda *_: GROUND_TRUTH.masks, rule)
        return time.thread_time() - start

    assert within(2 * 5e-3, 10_000)  # two rules
    best = min(seconds(LONG[kind](10_000)) for _ in range(5))
    assert within(30 * max(best, 1e-3), 100_000)


def test_a_hundred_thousand_boxes():
    text = format_answer("", 4, [[1, 2, 3, 4]] * 100_000)
    assert len(parse_answer(text).boxes) == 120
    check(text, GROUND_TRUTH)
