"""Answers that no policy should write, against everything that reads answers.

    python -m tests.fuzz_reward --strings 200000 --seed 0

Every string must give a finite score inside its range, under the published rule and the strict one, and boxes that a
tracker can use. It stops at the first that does not, and prints it.
"""

from __future__ import annotations

import argparse
import math
import random
import time

import numpy as np

from grpo_reward.reward_score import RewardScore
from tests.score_answer import score_answer
from veason.answers import MAX_BOXES, parse_answer
from veason.data.examples import GroundTruth

RULES = ("video_match_keyframe_sft_sam_mod", "veason_strict")
POINTS = "veason_points"
LIMITS = {"format": 2.0, "keyframe": 1.0, "spatial": 1.0, "consistency": 1.0}

TAGS = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<Answer>",
    "< answer>",
    "<answer",
    "</ answer>",
    "<answer><answer>",
]
NUMBERS = [
    "0",
    "-1",
    "3",
    "3.9",
    "17.5",
    "559",
    "1e3",
    "1e308",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "true",
    "false",
    "null",
]
NUMBERS += [
    '"3"',
    '" 3 "',
    '"3.5"',
    '"1_0"',
    '"٣"',
    "9223372036854775808",
    "-9223372036854775809",
    "9" * 310,
    "9" * 5000,
    "[]",
    "{}",
    '""',
    "0x1",
    "007",
    "+1",
]
NOISE = [
    " ",
    "\n",
    "\t",
    "\u2003",
    "\ufeff",
    "\x00",
    "\u202e",
    "\u200b",
    "\ud800",
    "}",
    "{",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    "\\u0000",
    "'",
    "```json\n",
    "```",
]
KEYS = [
    '"keyframe_timestamp"',
    '"bbox_2d_list"',
    '"keyframe_id"',
    '"bbox_2d"',
    "keyframe_timestamp",
    '"keyframe\\u005ftimestamp"',
]


def mutated_answer(rng: random.Random) -> str:
    """A string of the grammar: a well-formed answer, some of whose pieces were replaced, repeated, cut or moved."""
    if rng.random() < 0.02:
        return "".join(
            rng.choice(TAGS + NOISE + NUMBERS + KEYS) * rng.randint(1, 40) for _ in range(rng.randint(0, 12))
        )
    text = _answer(rng)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        text = rng.choice((_insert, _cut, _repeat, _move, _truncate, _run, _nest))(text, rng)
    return text


def _answer(rng: random.Random) -> str:
    space = lambda: rng.choice(("", "", " ", "\n", " \n\t "))  # noqa: E731
    return f"<think>{_words(rng)}</think>{space()}<answer>{space()}{_fields(rng)}{space()}</answer>"


def _words(rng: random.Random) -> str:
    return " ".join(
        rng.choice(["the", "dog", "best frame", "<", "{", "目标", *TAGS[:4]]) for _ in range(rng.choice((0, 3, 12)))
    )


def _fields(rng: random.Random) -> str:
    boxes = rng.choice((0, 1, 1, 2, 3, 5)) if rng.random() < 0.998 else rng.choice((130, 2000))
    listed = "[" + ", ".join(_box(rng) for _ in range(boxes)) + "]"
    listed = listed if rng.random() < 0.95 else rng.choice([*NUMBERS, listed * 2, f"[{listed}]"])
    time_key, list_key = (key if rng.random() < 0.97 else rng.choice(KEYS) for key in KEYS[:2])
    return f"{{{time_key}: {_number(rng, ['0', '4', '8'])}, {list_key}: {listed}}}"


def _box(rng: random.Random) -> str:
    count = 4 if rng.random() < 0.95 else rng.choice((0, 1, 3, 5, 8, 12))
    return (
        "["
        + ", ".join(_number(rng, [str(rng.randint(-2, 40)), f"{rng.uniform(0, 40):.2f}"]) for _ in range(count))
        + "]"
    )


def _number(rng: random.Random, usual: list[str]) -> str:
    return rng.choice(usual) if rng.random() < 0.98 else rng.choice(NUMBERS)


def _insert(text: str, rng: random.Random) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice(TAGS + NOISE + NUMBERS + KEYS) + text[place:]


def _cut(text: str, rng: random.Random) -> str:
    start = rng.randint(0, len(text))
    return text[:start] + text[start + rng.choice((1, 1, 3, 20)) :]


def _repeat(text: str, rng: random.Random) -> str:
    start, end = sorted(rng.randint(0, len(text)) for _ in range(2))
    return text[:end] + text[start:end] * rng.choice((1, 2, 5)) + text[end:]


def _move(text: str, rng: random.Random) -> str:
    a, b, c = sorted(rng.randint(0, len(text)) for _ in range(3))
    return text[:a] + text[b:c] + text[a:b] + text[c:]


def _truncate(text: str, rng: random.Random) -> str:
    return text[: rng.randint(0, len(text))]


def _run(text: str, rng: random.Random) -> str:
    """A long run of one thing, behind a tag if there is one."""
    tag = rng.choice(TAGS[:4])
    return text.replace(
        tag,
        tag + rng.choice([" ", "\n", "}", "</think>", "<answer>", "<answer> ", "} "]) * rng.choice((3, 200, 1500)),
        1,
    )


def _nest(text: str, rng: random.Random) -> str:
    depth = rng.choice((2, 50, 1200)) if rng.random() < 0.99 else 100_000
    return text.replace("[", "[" * depth, 1).replace("]", "]" * depth, 1)


def make_ground_truth() -> GroundTruth:
    """Three frames of 40 x 40 with two objects, one of them absent from the last."""
    masks = np.zeros((3, 40, 40), dtype=np.uint8)
    masks[0, 4:20, 4:20] = masks[1, 8:24, 8:30] = masks[2, :5, :5] = 1
    boxes = [
        [[4.5, 4.5, 19.5, 19.5], [30.5, 30.5, 35.5, 39.5]],
        [[8.5, 8.5, 29.5, 23.5], [0, 0, 0, 0]],
        [[0.5, 0.5, 4.5, 4.5], [0, 0, 0, 0]],
    ]
    return GroundTruth([0, 4, 8], boxes, masks)


def check(text: str, ground_truth: GroundTruth) -> list[RewardScore]:
    """Score `text` under each of the rules.

    Raises:
        AssertionError: something read from it, or its score, is not what it must be.
    """
    answer = parse_answer(text)
    assert answer.keyframe_timestamp is None or type(answer.keyframe_timestamp) is int
    assert len(answer.boxes) <= MAX_BOXES
    for x1, y1, x2, y2 in answer.boxes:
        assert math.isfinite(x1 + y1 + x2 + y2) or max(map(abs, (x1, y1, x2, y2))) > 1e307
        assert x1 <= x2 and y1 <= y2

    def tracker(boxes, keyframe):
        assert boxes.dtype == np.float64 and boxes.ndim == 2 and boxes.shape[1] == 4 and 0 < len(boxes) <= MAX_BOXES
        assert 0 <= keyframe < len(ground_truth.timestamps)
        return ground_truth.masks[::-1]

    def point_tracker(prompt):
        assert prompt.objects and all(
            0 <= each.frame < len(ground_truth.timestamps) for item in prompt.objects for each in item
        )
        return ground_truth.masks[::-1]

    scores = [score_answer(text, ground_truth, tracker, rule, track_objects=point_tracker) for rule in (*RULES, POINTS)]
    for score in scores:
        assert all(0.0 <= score.parts[name] <= limit for name, limit in LIMITS.items()), score
        assert math.isfinite(score.total) and 0.0 <= score.total <= 5.0, score
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, ground_truth = random.Random(options.seed), make_ground_truth()
    started, read, longest, slowest = time.perf_counter(), 0, 0, 0.0
    for number in range(options.strings):
        text = mutated_answer(rng)
        start = time.perf_counter()
        try:
            scores = check(text, ground_truth)
        except BaseException:
            print(f"string {number} of seed {options.seed}: {text!r}")
            raise
        slowest = max(slowest, time.perf_counter() - start)
        read, longest = read + (scores[1].failure is None), max(longest, len(text))
    spent = time.perf_counter() - started
    print(
        f"{options.strings} strings, {read} of them readable, up to {longest} characters: all scored, in {spent:.0f} s"
    )
    print(f"the slowest took {1e3 * slowest:.1f} ms")


if __name__ == "__main__":
    main()
