"""Parses a response for scoring, in two ways: as the published reward does, and strictly, as inference does."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from veason.answers import (
    BAD_BOXES,
    BAD_KEYFRAME,
    BOXES_KEY,
    KEYFRAME_KEY,
    MAX_BOXES,
    ObjectKeyframe,
    matches_format,
    parse_answer,
    parse_json,
    parse_json_answer,
)

_OPENING = re.compile(r"<answer>\s*+\{")
_CLOSING = re.compile(r"\}\s*+</answer>")


@dataclass(frozen=True)
class ParsedResponse:
    """One response, parsed.

    Attributes:
        matches_format: the whole response is `<think>..</think>` then `<answer>..</answer>`.
        valid_box_fraction: share of the listed boxes that are boxes, 0 to 1.
        keyframe_timestamp: None where there is none.
        boxes: float64 [M, 4], x1 y1 x2 y2; None where they cannot be compared with the ground truth.
        num_predicted: boxes that count as predicted: M, and those too malformed to be in `boxes`.
        failure: why the answer could not be parsed (a cause of `veason.answers`), None if it could.
        objects: of an answer with points, per object its entries; else empty.
    """

    matches_format: bool
    valid_box_fraction: float
    keyframe_timestamp: int | None
    boxes: np.ndarray | None
    num_predicted: int
    failure: str | None
    objects: tuple[tuple[ObjectKeyframe, ...], ...] = ()


def parse_published(text: str) -> ParsedResponse:
    """Parse as the published reward does: lenient about the timestamp, all or nothing about the boxes.

    Its format part wants an int timestamp (a bool passes) and looks for an object that ends right before `</answer>`;
    its other parts take the first closed block and any timestamp that `int()` takes: 3.9, "3", true. Boxes of anything
    but 4 numbers make the whole list unusable.
    """
    fields, failure = parse_json_answer(text)
    timestamp = _to_int(fields.get(KEYFRAME_KEY, -1)) if failure is None else None
    boxes = _to_array(fields.get(BOXES_KEY)) if failure is None else None
    if failure is None:
        given = timestamp is not None and KEYFRAME_KEY in fields
        failure = BAD_KEYFRAME if not given else BAD_BOXES if boxes is None else None
    count = 0 if boxes is None else len(boxes)
    return ParsedResponse(matches_format(text), _published_valid_box_fraction(text), timestamp, boxes, count, failure)


def parse_without_reasoning(text: str) -> ParsedResponse:
    """`parse_published` where the whole response is `<answer>..</answer>`: the paper's ablation without reasoning."""
    parsed = parse_published(text)
    bare = text.startswith("<answer>") and text.endswith("</answer>")
    return replace(parsed, matches_format=bare)


def parse_strict(text: str) -> ParsedResponse:
    """Parse as inference does: a whole timestamp, finite and ordered boxes.

    An empty list is well-formed and says that the target is absent.
    """
    answer = parse_answer(text)
    if answer.failure and not answer.num_listed:
        return ParsedResponse(matches_format(text), 0.0, answer.keyframe_timestamp, None, 0, answer.failure)
    considered = min(answer.num_listed, MAX_BOXES)
    share = len(answer.boxes) / considered if considered else 1.0
    boxes = np.array(answer.boxes, dtype=np.float64).reshape(-1, 4)
    return ParsedResponse(matches_format(text), share, answer.keyframe_timestamp, boxes, considered, answer.failure)


def _published_valid_box_fraction(text: str) -> float:
    opening = _OPENING.search(text)
    closing = _CLOSING.search(text, opening.end()) if opening else None
    if opening is None or closing is None:
        return 0.0
    fields = parse_json(text[opening.end() - 1 : closing.start() + 1])
    if (
        not isinstance(fields, dict)
        or not isinstance(fields.get(KEYFRAME_KEY), int)
        or not isinstance(fields.get(BOXES_KEY), list)
    ):
        return 0.0
    boxes = fields[BOXES_KEY]
    return sum(map(_is_four_numbers, boxes)) / len(boxes) if boxes else 0.0


def _is_four_numbers(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)


def _to_int(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _to_array(boxes: Any) -> np.ndarray | None:
    if not isinstance(boxes, list) or not boxes:
        return None
    boxes = boxes[:MAX_BOXES]
    if not all(map(_is_four_numbers, boxes)) or all(isinstance(value, bool) for box in boxes for value in box):
        return None
    try:
        return np.array([[float(value) for value in box] for box in boxes])
    except OverflowError:  # an integer beyond the range of floats
        return None
