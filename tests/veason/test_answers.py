"""Reading and writing answers."""

import gzip
import json
import math
import operator
from pathlib import Path

import pytest

from veason.answer_parsers import ANSWER_PARSERS
from veason.answers import (
    BAD_BOXES,
    BAD_JSON,
    BAD_KEYFRAME,
    MAX_BOXES,
    NO_ANSWER,
    format_answer,
    matches_format,
    parse_answer,
    parse_published_answer,
)

GOLDEN = Path(__file__).parent / "golden"


def test_what_is_written_is_read():
    text = format_answer("Two dogs; the left one.", 12, [[1, 2, 30.5, 40], (0, 0, 559, 559)])
    answer = parse_answer(text)
    assert matches_format(text)
    assert answer.thinking == "Two dogs; the left one."
    assert (answer.keyframe_timestamp, answer.boxes, answer.failure) == (12, ((1, 2, 30.5, 40), (0, 0, 559, 559)), None)
    assert '"bbox_2d_list": [[1, 2, 30.5, 40], [0, 0, 559, 559]]' in text  # whole numbers stay whole


@pytest.mark.parametrize("boxes", [[], [[0, 0, 0, 0]], [[0, 0, 0, 0], [0.0, 0, 0, 0]]])
def test_no_box_and_only_zero_boxes_are_answers(boxes):
    answer = parse_answer(format_answer("It is not there.", 3, boxes))
    assert answer.failure is None and answer.boxes == () and answer.keyframe_timestamp == 3 and answer.num_listed == 0


@pytest.mark.parametrize(
    ("block", "failure"),
    [
        ("", NO_ANSWER),
        ("<answer>{", NO_ANSWER),
        ("<answer></answer>", BAD_JSON),
        ("<answer>[1]</answer>", BAD_JSON),
        ("<answer>{'keyframe_timestamp': 3}</answer>", BAD_JSON),
        ('<answer>{"bbox_2d_list": []}</answer>', BAD_KEYFRAME),
        ('<answer>{"keyframe_timestamp": true, "bbox_2d_list": []}</answer>', BAD_KEYFRAME),
        ('<answer>{"keyframe_timestamp": "3", "bbox_2d_list": []}</answer>', BAD_KEYFRAME),
        ('<answer>{"keyframe_timestamp": 3.5, "bbox_2d_list": []}</answer>', BAD_KEYFRAME),
        ('<answer>{"keyframe_timestamp": NaN, "bbox_2d_list": []}</answer>', BAD_KEYFRAME),
        ('<answer>{"keyframe_timestamp": 3}</answer>', BAD_BOXES),
        ('<answer>{"keyframe_timestamp": 3, "bbox_2d_list": [1, 2, 3, 4]}</answer>', BAD_BOXES),
        ('<answer>{"keyframe_timestamp": 3, "bbox_2d_list": [[0, 0, 0, 0], [9, 9, 1, 1]]}</answer>', BAD_BOXES),
        ('<answer>{"keyframe_timestamp": 3, "bbox_2d_list": [[0, 0, 0, false]]}</answer>', BAD_BOXES),
    ],
)
def test_causes_of_failure(block, failure):
    answer = parse_answer(f"<think>hm</think>{block}")
    assert answer.failure == failure and answer.boxes == () and answer.thinking == "hm"


def test_only_boxes_are_boxes():
    entries = "[3, 4, 5, 6], [9, 4, 5, 6], [NaN, 1, 2, 3], [1, 2, 3], [true, 0, 2, 2], "
    entries += '[0, 0, 1e999, 5], "x", null, [7, 7, 7, 7]'
    answer = parse_answer(f'<think></think><answer>{{"keyframe_timestamp": 3.0, "bbox_2d_list": [{entries}]}}</answer>')
    assert answer.boxes == ((3, 4, 5, 6), (7, 7, 7, 7))
    assert (answer.num_listed, answer.keyframe_timestamp, answer.failure) == (9, 3, None)
    assert type(answer.keyframe_timestamp) is int


def test_no_answer_asks_for_more_boxes_than_the_limit():
    answer = parse_answer(format_answer("", 0, [[0, 0, i + 1, 5] for i in range(MAX_BOXES + 50)]))
    assert len(answer.boxes) == MAX_BOXES and answer.num_listed == MAX_BOXES + 50


def test_numbers_beyond_floats_are_no_boxes():
    huge = "9" * 400
    answer = parse_answer(
        f'<answer>{{"keyframe_timestamp": {huge}, "bbox_2d_list": [[0, 0, {huge}, 5], [1, 1, 2, 2]]}}</answer>'
    )
    assert answer.boxes == ((1, 1, 2, 2),) and answer.keyframe_timestamp == int(huge)
    assert all(math.isfinite(value) for value in answer.boxes[0])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("<think></think><answer></answer>", True),
        ("<think>a</think>\n\t <answer>b</answer>", True),
        ("<think>a</think> so <answer>b</answer>", False),
        ("<think>a</think>x</think><answer>b</answer>", True),
        ("<think>a</think><answer>b</answer> ", False),
        (" <think>a</think><answer>b</answer>", False),
        ("<think></think><answer>", False),
        ("<think><answer></answer>", False),
        ("<think>a</think><answer>b</answer>c</answer>", True),
    ],
)
def test_layout(text, whole):
    assert matches_format(text) is whole


def test_the_published_parser_is_that_of_the_published_evaluation():
    """Golden strings of the reward and strings at the edges, read by `extract_bbox_points_think` of
    github.com/SitongGong/Veason-R1 (dde0d9b) with factors of 1, which rounds by int(x + 0.5); null where it raises.
    """
    with gzip.open(GOLDEN / "published_reading.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) > 450
    for row in rows:
        answer = parse_published_answer(row["text"])
        boxes = [[int(value + 0.5) for value in box] for box in answer.boxes]
        found = None if answer.failure else [answer.keyframe_timestamp, boxes, answer.thinking]
        assert found == row["read"], row["text"]
    strict = [parse_answer(row["text"]).failure is None for row in rows]
    published = [row["read"] is not None for row in rows]
    assert sum(map(operator.and_, strict, published)) == 279
    assert sum(map(operator.gt, published, strict)) == 57  # read by the published evaluation alone
    assert sum(map(operator.gt, strict, published)) == 14  # such as a list with one entry that is no box


@pytest.mark.parametrize(
    ("given", "timestamp"), [("12", 12), ('"12"', 12), ("12.5", 12), ("'7'", 7), ("true", 1), ('"12.5"', None)]
)
def test_the_timestamps_of_the_published_parser(given, timestamp):
    text = f'<think>x</think><answer>{{"keyframe_timestamp": {given}, "bbox_2d_list": [[1, 2, 3, 4]]}}</answer>'
    answer = ANSWER_PARSERS["published"](text)
    assert answer.keyframe_timestamp == timestamp and (answer.failure is None) == (timestamp is not None)
    assert (ANSWER_PARSERS["strict"](text).failure is None) == (given == "12")
