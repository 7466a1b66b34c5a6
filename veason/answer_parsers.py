"""Answer parsers by name: `answer_parser` of `veason.json`, of the evaluation and of the prediction."""

from __future__ import annotations

from collections.abc import Callable

from veason.answers import Answer, parse_answer, parse_published_answer
from veason.point_answers import parse_point_answer

STRICT, PUBLISHED, POINTS = "strict", "published", "points"
ANSWER_PARSERS: dict[str, Callable[[str], Answer]] = {
    STRICT: parse_answer,
    PUBLISHED: parse_published_answer,
    POINTS: parse_point_answer,
}
