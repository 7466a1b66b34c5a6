"""Answers with points and several keyframes of an object: the format of the rule `veason_points`.

    <think>reasoning</think>
    <answer>{"objects": [{"id": 1, "keyframe_timestamp": 12, "bbox_2d": [x1, y1, x2, y2],
                          "points_2d": [[x, y], ...], "negative_points_2d": [[x, y], ...]}, ...]}</answer>

Entries with one id are one object on several keyframes. An entry needs a box or a point on the object; what it does not
need may be left out. Parsing never raises, whatever the policy wrote.
"""

from __future__ import annotations

import math
from typing import Any

from veason.answers import (
    BAD_BOXES,
    BAD_KEYFRAME,
    KEYFRAME_KEY,
    MAX_BOXES,
    THINK_TAGS,
    Answer,
    ObjectKeyframe,
    Point,
    is_number,
    parse_box,
    parse_json_answer,
    text_between,
)

OBJECTS_KEY, ID_KEY, BOX_KEY = "objects", "id", "bbox_2d"
POINTS_KEY, NEGATIVE_KEY = "points_2d", "negative_points_2d"
MAX_POINTS = 16  # of one entry and kind that are read


def parse_point_answer(text: str) -> Answer:
    """The answer with its objects; `keyframe_timestamp` is the first entry's, `boxes` are those on it.

    Entries that cannot be used are dropped, and a list of nothing but such entries is a failure. An empty list says
    that the target is absent.
    """
    thinking = text_between(text, *THINK_TAGS) or ""
    fields, failure = parse_json_answer(text)
    if failure:
        return Answer(thinking, None, (), failure)
    listed = fields.get(OBJECTS_KEY)
    if not isinstance(listed, list):
        return Answer(thinking, None, (), BAD_BOXES)
    if not listed:
        return Answer(thinking, None, (), None)
    objects: dict[int, dict[int, ObjectKeyframe]] = {}
    for number, given in enumerate(listed[:MAX_BOXES]):
        entry = _read_entry(given)
        if entry is not None:
            # without an id an entry is an object of its own; of two on one frame the first one counts
            identity = given[ID_KEY] if ID_KEY in given else -1 - number
            objects.setdefault(identity, {}).setdefault(entry.timestamp, entry)
    found = tuple(tuple(entries.values()) for entries in objects.values())
    if not found:
        without_timestamp = not any(_read_timestamp(given) is not None for given in listed if isinstance(given, dict))
        return Answer(thinking, None, (), BAD_KEYFRAME if without_timestamp else BAD_BOXES, len(listed))
    timestamp = found[0][0].timestamp
    boxes = tuple(each.box for item in found for each in item if each.timestamp == timestamp and each.box is not None)
    return Answer(thinking, timestamp, boxes, None, len(listed), found)


def _read_entry(given: Any) -> ObjectKeyframe | None:
    if not isinstance(given, dict):
        return None
    timestamp, identity = _read_timestamp(given), given.get(ID_KEY, 0)
    if timestamp is None or isinstance(identity, bool) or not isinstance(identity, int) or identity < 0:
        return None
    box = None
    if given.get(BOX_KEY) is not None and (box := parse_box(given[BOX_KEY])) is None:
        return None
    points, negative = _read_points(given.get(POINTS_KEY)), _read_points(given.get(NEGATIVE_KEY))
    if points is None or negative is None or (box is None and not points):
        return None
    return ObjectKeyframe(timestamp, box, points, negative)


def _read_timestamp(given: dict[str, Any]) -> int | None:
    timestamp: Any = given.get(KEYFRAME_KEY)
    if not is_number(timestamp) or (isinstance(timestamp, float) and not timestamp.is_integer()):
        return None
    return int(timestamp)


def _read_points(given: Any) -> tuple[Point, ...] | None:
    """The points of a list, none where there is no list; None where it cannot be used."""
    if given is None:
        return ()
    if not isinstance(given, list):
        return None
    points = []
    for point in given[:MAX_POINTS]:
        if not (isinstance(point, list) and len(point) == 2 and all(map(is_number, point))):
            return None
        try:
            x, y = map(float, point)
        except OverflowError:  # an integer beyond the range of floats
            return None
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        points.append((x, y))
    return tuple(points)
