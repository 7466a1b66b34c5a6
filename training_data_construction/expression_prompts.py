"""What a teacher is asked who writes expressions for a mask, and what is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from training_data_construction.reasoning_prompts import REMINDER
from training_data_construction.teacher_checks import MARKUP, check_annotation_mentions

MIN_WORDS = 2  # of an expression
KINDS = ("referring", "reasoning")
TIME_MENTION = re.compile(
    r"\b(?:frames?|timestamps?|keyframes?|screenshots?)\b|\b\d+ ?(?:s|sec|seconds?)\b", re.IGNORECASE
)

PROMPT = """\
You see {count} frames of one video; the time of each frame, in seconds, stands before it. One object is outlined in \
red on every frame where it can be seen{category}. Write descriptions from which somebody who sees the same video \
without the outline finds this object, and no other.

{wanted}

Rules:
- Each description fits this object alone: not one that looks alike, not several.
- At most {max_words} words each, in plain English, without a final period; no two alike.
- Never mention outlines, boxes, marks or the colour in which they are drawn, and no frames or times.
- Answer with one JSON object and nothing else: {form}
"""
REFERRING = """\
{count} referring: by what is seen, such as its kind, looks, place, motion or what it does with others ("the brown dog \
that runs ahead of the bicycle")."""
REASONING = """\
{count} reasoning: it is not named and not described by its looks; one has to understand the video or know about the \
world ("who should be warned that the door is about to open")."""


def build_expression_content(
    timestamps: Sequence[int],
    pictures: Sequence[str],
    wanted: dict[str, int],
    category: str | None = None,
    reason: str | None = None,
    max_words: int = 25,
) -> list[dict[str, Any]]:
    """The user turn of one request, as the `content` of an OpenAI chat message.

    Args:
        timestamps: of the frames, in seconds.
        pictures: per frame an image URL, with the object outlined.
        wanted: referring and reasoning -> how many.
        category: of the object, where the annotation has one.
        reason: why the previous answer was not accepted; None at the first request.
        max_words: of one expression.
    """
    content: list[dict[str, Any]] = []
    for timestamp, picture in zip(timestamps, pictures, strict=True):
        content.append({"type": "text", "text": f"[{timestamp} s]"})
        content.append({"type": "image_url", "image_url": {"url": picture}})
    asked = [text.format(count=wanted[kind]) for kind, text in zip(KINDS, (REFERRING, REASONING)) if wanted[kind]]
    form = ", ".join(f'"{kind}": [{wanted[kind]} texts]' for kind in KINDS if wanted[kind])
    text = PROMPT.format(
        count=len(timestamps),
        category=f" (its category: {category})" if category else "",
        wanted="\n".join(asked),
        max_words=max_words,
        form=f"{{{form}}}",
    )
    if reason is not None:
        text += "\n" + REMINDER.format(reason=reason)
    return [*content, {"type": "text", "text": text}]


def read_expressions(text: str) -> dict[str, list[str]] | None:
    """The expressions of an answer by kind; None when it is not such a JSON object."""
    start, end = text.find("{"), text.rfind("}")
    try:
        content = json.loads(text[start : end + 1]) if start >= 0 else None
    except json.JSONDecodeError:
        return None
    if not isinstance(content, dict) or not set(content) <= set(KINDS):
        return None
    lists = {kind: content.get(kind, []) for kind in KINDS}
    if not all(isinstance(found, list) and all(isinstance(each, str) for each in found) for found in lists.values()):
        return None
    return {kind: [" ".join(each.split()).rstrip(".") for each in found] for kind, found in lists.items()}


def check_expressions(text: str, wanted: dict[str, int], max_words: int = 25) -> str | None:
    """Why an answer is not usable, or None when it is.

    Args:
        wanted: referring and reasoning -> how many.
        max_words: of one expression.
    """
    if not text:
        return "it was empty"
    found = read_expressions(text)
    if found is None:
        return "it was not one JSON object with the lists referring and reasoning"
    for kind in KINDS:
        if len(found[kind]) != wanted[kind]:
            return f"it had {len(found[kind])} {kind} descriptions instead of {wanted[kind]}"
    every = [each for kind in KINDS for each in found[kind]]
    if len({each.lower() for each in every}) < len(every):
        return "two descriptions were the same"
    for each in every:
        if problem := _check_one(each, max_words):
            return f"{problem} ({each[:80]!r})"
    return None


def _check_one(expression: str, max_words: int) -> str | None:
    words = len(expression.split())
    if not MIN_WORDS <= words <= max_words:
        return f"a description had {words} words instead of {MIN_WORDS} to {max_words}"
    if MARKUP.search(expression):
        return "a description contained markup"
    if found := TIME_MENTION.search(expression):
        return f"a description mentioned a frame or a time ({found.group()!r})"
    return check_annotation_mentions(expression, "")
