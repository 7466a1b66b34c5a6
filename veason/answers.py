"""The policy's answer as text: parsed for inference and reward, formatted as a training target.

    <think>reasoning</think>
    <answer>{"keyframe_timestamp": 12, "bbox_2d_list": [[x1, y1, x2, y2], ...]}</answer>

Parsing never raises and takes time linear in the length of the text, whatever the policy wrote. There are two parsers:
"strict", our own, and "published", which accepts what the evaluation of the published release accepts. Answers with
points have a format of their own, `veason.point_answers`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]
Point = tuple[float, float]

KEYFRAME_KEY, BOXES_KEY = "keyframe_timestamp", "bbox_2d_list"
MAX_BOXES = 120  # boxes of one answer that are tracked or scored; further ones are ignored

# Why an answer could not be parsed; failures are counted under these names.
NO_ANSWER, BAD_JSON, BAD_KEYFRAME, BAD_BOXES = "no_answer", "bad_json", "bad_keyframe", "bad_boxes"

SINGLE_BOX_KEY = "bbox_2d"  # what the published evaluation reads where the list of boxes is no list

THINK_TAGS = "<think>", "</think>"
_THOUGHT = re.compile(r"<think>([^<]+)</think>")
_BETWEEN_TAGS = re.compile(r"</think>\s*+<answer>")


@dataclass(frozen=True)
class ObjectKeyframe:
    """What an answer with points gives of one object on one frame; coordinates as in `Answer`."""

    timestamp: int  # of the frame, one of those shown
    box: Box | None = None  # None: points alone
    points: tuple[Point, ...] = ()  # on the object
    negative_points: tuple[Point, ...] = ()  # beside it


@dataclass(frozen=True)
class Answer:
    """A parsed answer.

    Attributes:
        thinking: the text between the first `<think>` and its `</think>`; empty where there is none.
        keyframe_timestamp: the one chosen of the timestamps shown; None where it could not be parsed.
        boxes: (x1, y1, x2, y2) in pixels of the frames shown, finite; at most `MAX_BOXES`. Parsed strictly,
            x1 <= x2 and y1 <= y2.
        failure: None where the answer could be parsed, else one of the causes above. Without a failure `boxes` may be
            empty: the target is absent.
        num_listed: entries of the answer's list, unusable ones included; 0 for a list that says that the target is
            absent.
        objects: of an answer with points, per object what is given on each of its keyframes; else empty.
    """

    thinking: str
    keyframe_timestamp: int | None
    boxes: tuple[Box, ...]
    failure: str | None
    num_listed: int = 0
    objects: tuple[tuple[ObjectKeyframe, ...], ...] = ()


def parse_answer(text: str) -> Answer:
    """Parses strictly: JSON, a whole number as the timestamp.

    Entries that are no box are dropped, and a list of nothing but such entries is a failure. Two lists say that the
    target is absent, which is no failure: an empty one, and one of zero boxes only.
    """
    thinking = text_between(text, *THINK_TAGS) or ""
    fields, failure = parse_json_answer(text)
    if failure:
        return Answer(thinking, None, (), failure)
    timestamp, listed = fields.get(KEYFRAME_KEY), fields.get(BOXES_KEY)
    if timestamp is None or not is_number(timestamp) or (isinstance(timestamp, float) and not timestamp.is_integer()):
        return Answer(thinking, None, (), BAD_KEYFRAME)
    if not isinstance(listed, list):
        return Answer(thinking, int(timestamp), (), BAD_BOXES)
    if all(map(_is_zero_box, listed)):
        return Answer(thinking, int(timestamp), (), None)
    boxes = tuple(box for box in map(parse_box, listed[:MAX_BOXES]) if box is not None)
    return Answer(thinking, int(timestamp), boxes, None if boxes else BAD_BOXES, len(listed))


def parse_published_answer(text: str) -> Answer:
    """Parses as `extract_bbox_points_think` of github.com/SitongGong/Veason-R1
    (multi_gpu_eval_keyframe_sft_mod_reason_vos.py) reads.

    Single quotes count as double ones, the timestamp is what `int()` makes of it ("12", 12.5, true), an entry of the
    list is read by its first four numbers, and one that has none makes the whole answer unusable. Where the list is no
    list, the single box `bbox_2d` is read.
    """
    thought = _THOUGHT.search(text)
    thinking = thought[1] if thought else ""
    block = text_between(text, "<answer>", "</answer>")
    if block is None:
        return Answer(thinking, None, (), NO_ANSWER)
    fields = parse_json(block.strip().replace("'", '"'))
    if not isinstance(fields, dict):
        return Answer(thinking, None, (), BAD_JSON)
    try:
        timestamp = int(fields.get(KEYFRAME_KEY, -1))
    except (TypeError, ValueError, OverflowError):
        return Answer(thinking, None, (), BAD_KEYFRAME)
    listed = fields.get(BOXES_KEY)
    if not isinstance(listed, list):
        listed = [fields.get(SINGLE_BOX_KEY)] if BOXES_KEY in fields else [None]
    boxes = [_first_four(entry) for entry in listed]
    if None in boxes:
        return Answer(thinking, timestamp, (), BAD_BOXES, len(listed))
    return Answer(thinking, timestamp, tuple(box for box in boxes[:MAX_BOXES] if box is not None), None, len(listed))


def format_answer(thinking: str, keyframe_timestamp: int, boxes: Sequence[Sequence[float]]) -> str:
    """An answer in the layout above; whole coordinates are written as integers."""
    numbers = [[int(value) if float(value).is_integer() else float(value) for value in box] for box in boxes]
    fields = json.dumps({KEYFRAME_KEY: int(keyframe_timestamp), BOXES_KEY: numbers})
    return f"<think>{thinking}</think>\n<answer>{fields}</answer>"


def matches_format(text: str) -> bool:
    """Whether the whole text is `<think>..</think>`, white space, `<answer>..</answer>`."""
    head, tail = "<think>", "</answer>"
    if not (text.startswith(head) and text.endswith(tail)):
        return False
    middle = _BETWEEN_TAGS.search(text, len(head))
    return middle is not None and middle.end() <= len(text) - len(tail)


def parse_json_answer(text: str) -> tuple[dict[str, Any], str | None]:
    """The JSON object in the first closed `<answer>` block and None, or an empty one and the cause of failure."""
    block = text_between(text, "<answer>", "</answer>")
    if block is None:
        return {}, NO_ANSWER
    value = parse_json(block.strip())
    return (value, None) if isinstance(value, dict) else ({}, BAD_JSON)


def parse_json(text: str) -> Any:
    """Parse JSON; None for text that is no JSON, nests too deeply or holds an integer of thousands of digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_number(value: Any) -> bool:
    """An int or a float, but no bool, which Python counts among the ints."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_between(text: str, start: str, end: str) -> str | None:
    """The text between the first `start` and the next `end`; None where there is none."""
    first = text.find(start)
    if first < 0:
        return None
    first += len(start)
    last = text.find(end, first)
    return None if last < 0 else text[first:last]


def parse_box(entry: Any) -> Box | None:
    """A box of four finite, ordered numbers; None for anything else, and for [0, 0, 0, 0]."""
    if not _is_four_numbers(entry) or _is_zero_box(entry):
        return None
    try:
        x1, y1, x2, y2 = map(float, entry)
    except OverflowError:  # an integer beyond the range of floats
        return None
    finite = all(map(math.isfinite, (x1, y1, x2, y2)))
    return (x1, y1, x2, y2) if finite and x1 <= x2 and y1 <= y2 else None


def _first_four(entry: Any) -> Box | None:
    """A box from a list of at least four numbers, of which a bool is one; None for anything else."""
    if not isinstance(entry, list) or len(entry) < 4 or not all(isinstance(value, int | float) for value in entry[:4]):
        return None
    try:
        x1, y1, x2, y2 = map(float, entry[:4])
    except OverflowError:  # an integer beyond the range of floats
        return None
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


def _is_zero_box(entry: Any) -> bool:
    """Whether an entry is [0, 0, 0, 0], which stands for "not in this frame" in the data."""
    return _is_four_numbers(entry) and not any(entry)


def _is_four_numbers(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 4 and all(map(is_number, entry))
