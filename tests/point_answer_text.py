"""Writes answers with points, as a policy would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from veason.answers import KEYFRAME_KEY, ObjectKeyframe
from veason.point_answers import BOX_KEY, ID_KEY, NEGATIVE_KEY, OBJECTS_KEY, POINTS_KEY


def format_point_answer(thinking: str, objects: Sequence[Sequence[ObjectKeyframe]]) -> str:
    """An answer in the layout of `veason.point_answers`."""
    listed = []
    for number, item in enumerate(objects, start=1):
        for each in item:
            entry: dict[str, Any] = {ID_KEY: number, KEYFRAME_KEY: each.timestamp}
            given = {BOX_KEY: each.box, POINTS_KEY: each.points, NEGATIVE_KEY: each.negative_points}
            listed.append(entry | {key: value for key, value in given.items() if value})
    return f"<think>{thinking}</think>\n<answer>{json.dumps({OBJECTS_KEY: listed})}</answer>"
