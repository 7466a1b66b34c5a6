"""Scoring takes time linear in the length of the answer, whatever the policy wrote."""

import time

import numpy as np
import pytest

from grpo_reward.rules import RULES
from tests.score_answer import score_answer
from veason.data.examples import GroundTruth

LENGTH, LIMIT = 10_000, 0.005  # characters, seconds
RUNS = 100  # of which one has to be within the limit: other work on the machine is not the rule's

HEAD = '<think></think><answer>{"keyframe_timestamp": 3, "bbox_2d_list": ['
# before, again and again, after
TEXTS = {
    "text": ("<think>", "why ", "</think>"),
    "open_think": ("", "<think>", ""),
    "closed_think": ("<think>", "</think>", "</answer>"),
    "open_answer": ("<think></think>", "<answer>", "</answer>"),
    "tags": ("<think>", "</think> <answer>", "</answer>"),
    "spaces_between": ("<think>", "</think>" + " " * 500, "<answer></answer>"),
    "spaces_in_answer": ("<think></think>", "<answer>" + " " * 500, "{}</answer>"),
    "braces": ("<think></think><answer>", "{", "</answer>"),
    "closing_braces": ("<think></think><answer>{", "} ", "</answer>"),
    "brackets": (HEAD, "[", "</answer>"),
    "digits": (HEAD + "[0, 0, 0, ", "9", "]]}</answer>"),
    "boxes": (HEAD, "[1,2,9,8],", "[1,2,9,8]]}</answer>"),
    "tiny_boxes": (HEAD, "[],", "[]]}</answer>"),
    "quotes": (HEAD, '"\\\\', '"]}</answer>'),
}


@pytest.mark.parametrize("rule", RULES)
def test_ten_thousand_characters(rule):
    masks = np.zeros((3, 56, 56), dtype=np.uint8)
    masks[:, 2:30, 4:40] = 1
    ground_truth = GroundTruth([0, 3, 6], [[[4, 2, 39, 29]] * 8] * 3, masks)
    slow = {}
    for name, (before, repeated, after) in TEXTS.items():
        text = before + repeated * ((LENGTH - len(before) - len(after)) // len(repeated)) + after
        seconds: list[float] = []
        while not seconds or (min(seconds) > LIMIT and len(seconds) < RUNS):
            start = time.thread_time()
            score = score_answer(text, ground_truth, lambda *_: masks, rule)
            seconds.append(time.thread_time() - start)
        assert 0 <= score.total <= 5
        if min(seconds) > LIMIT:
            slow[name] = min(seconds)
    assert not slow
