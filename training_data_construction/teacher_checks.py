"""Checks of a teacher's answer before it becomes a training label.

An answer consists of three steps about the given keyframe that do not mention the drawn boxes. The reason for a failure
is given to the teacher with the next request, and kept in the journal.
"""

from __future__ import annotations

import re

STEP = re.compile(r"^[ \t#>*_-]*step[ \t]+(\d+)[ \t]*[*_]*[ \t]*[:.)–—-][ \t*_]*", re.IGNORECASE | re.MULTILINE)
THINK_BLOCK = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
MARKUP = re.compile(r"</?(?:think|answer|image|video|audio)>|<\|[^<>|]{1,40}\|>", re.IGNORECASE)

SHAPE = r"(?:bounding[ -]?)?(?:box(?:es)?|bbox(?:es)?|rectangles?|outlines?|borders?|contours?|markers?|markings?)"
MARKED = r"(?:highlighted|marked|outlined|boxed|circled|annotated|framed|delineated|enclosed|bordered)"
PLACED = r"(?:in|with|by|within|inside) (?:the |a |an )?"
ANNOTATION_MENTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bbounding[ -]?box(?:es)?\b|\bbbox(?:es)?\b",
        r"\bred[ -](?:coloured |colored |bounding[ -]?)?" + SHAPE + r"\b",
        r"\brectangles?\b",
        r"\bred[ -](?:outlined|boxed|marked|circled|framed|bordered|highlight\w*)\b",
        r"\b" + MARKED + " " + PLACED + r"(?:red|box|rectangle|outline|colou?r)",
        r"\b(?:the|an?) (?:highlighted|marked|outlined|boxed|circled|annotated|delineated) \w+",
        r"\b(?:shown|indicated|denoted|displayed|identified) "
        r"(?:in red\b|by (?:the |an? )?(?:red\b|box|outline|lines?\b))",
        r"\b(?:in|within|inside|by) the (?:red )?box(?:es)?\b",
        # "a red square" alone may be an object of the video
        r"\b(?:in|within|inside|by) (?:the|an?) red (?:squares?|circles?|frames?|lines?)\b",
        r"\b(?:drawn|overlaid|superimposed|marked|annotated) (?:box|outline|rectangle)",
        r"\b(?:box|outline)(?:es|s)? (?:drawn|overlaid|superimposed|around|surrounding) ",
        r"\b(?:the|by|an?) (?:visual )?annotations?\b",
    )
)
# Prefix of a mention that is ignored when it is compared with the expression.
PREFIX = re.compile(r"^(?:(?:in|within|inside|by) )?(?:the|an?) ")

REFERENCE = r"(?:frame|timestamp|time|second|t)s?(?: (?:at|number|with|timestamp|time|second|of))*[ =:]*(\d+)"
NAMED_BEFORE = re.compile(
    REFERENCE + r"(?: seconds?| s)? (?:is|was|makes|serves as|acts as|stands as)(?: \w+){0,4} key[ -]?frame\b",
    re.IGNORECASE,
)
NAMED_AFTER = re.compile(
    r"\bkey[ -]?frame(?:'s)?"
    r"(?: (?:timestamp|time|frame|is|at|the(?= (?:timestamp|time|frame|second))|of|in|a|as|being|second|t))*"
    r"[ =:]*(\d+)",
    re.IGNORECASE,
)


def strip_thinking(text: str) -> str:
    """The answer without a leading `<think>` block of a reasoning model and without outer white space."""
    return THINK_BLOCK.sub("", text, count=1).strip()


def check_answer(text: str, keyframe_timestamp: int, expression: str, max_words: int = 500) -> str | None:
    """Why an answer is not usable, or None when it is.

    Args:
        text: the answer, see `strip_thinking`.
        keyframe_timestamp: of the given keyframe, in seconds.
        expression: the description; phrases that it contains itself are allowed (the target may be a red box).
        max_words: the longest usable answer; the student has 1,024 tokens for reasoning and boxes.
    """
    if not text:
        return "it was empty"
    if len(text.split()) > max_words:
        return f"it was longer than {max_words} words"
    if found := MARKUP.search(text):
        return f"it contained the markup {found.group()}"
    return (
        _check_steps(text) or _check_keyframe(text, keyframe_timestamp) or check_annotation_mentions(text, expression)
    )


def _check_steps(text: str) -> str | None:
    headings = list(STEP.finditer(text))
    if [int(heading.group(1)) for heading in headings] != [1, 2, 3]:
        return "it did not consist of exactly Step 1, Step 2 and Step 3, in this order"
    if headings[0].start() > 0:
        return "it had text before Step 1"
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    for number, (heading, end) in enumerate(zip(headings, ends, strict=True), start=1):
        if len(text[heading.end() : end].split()) < 3:
            return f"Step {number} said nothing"
    return None


def _check_keyframe(text: str, keyframe_timestamp: int) -> str | None:
    reasons = text[list(STEP.finditer(text))[1].end() :]  # steps 2 and 3
    if not re.search(rf"(?<![\d.,]){keyframe_timestamp}(?![\d]|[.,]\d)", reasons):
        return f"it did not name the given keyframe, {keyframe_timestamp}"
    for pattern in (NAMED_BEFORE, NAMED_AFTER):
        for found in pattern.finditer(text):
            if int(found.group(1)) != keyframe_timestamp:
                return f"it named {found.group(1)} as the keyframe instead of {keyframe_timestamp}"
    return None


def check_annotation_mentions(text: str, expression: str) -> str | None:
    """Why a text gives away what was drawn onto the frames, in words that the expression does not have; None else."""
    described = expression.lower()
    for pattern in ANNOTATION_MENTIONS:
        for found in pattern.finditer(text):
            if PREFIX.sub("", found.group().lower()) not in described:
                return f'it mentioned what was drawn onto the frames ("{found.group().strip()}")'
    return None
