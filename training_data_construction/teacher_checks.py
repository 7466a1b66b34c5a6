"""The checks that a teacher's answer passes before it becomes a training label.

An answer is three steps, about the given keyframe, that never betray the drawn boxes. What fails is named in words that
the teacher is given back when it is asked again, and that the journal keeps when the expression is set aside.
"""

from __future__ import annotations

import re

STEP = re.compile(r"^[ \t#>*_-]*step[ \t]+(\d+)[ \t]*[*_]*[ \t]*[:.)–—-][ \t*_]*", re.IGNORECASE | re.MULTILINE)
OWN_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
MARKUP = re.compile(r"</?(?:think|answer|image|video|audio)>|<\|[^<>|]{1,40}\|>", re.IGNORECASE)

SHAPE = r"(?:bounding[ -]?)?(?:box(?:es)?|bbox(?:es)?|rectangles?|outlines?|borders?|contours?|markers?|markings?)"
MARKED = r"(?:highlighted|marked|outlined|boxed|circled|annotated|framed|delineated|enclosed|bordered)"
PLACED = r"(?:in|with|by|within|inside) (?:the |a |an )?"
BETRAYALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bbounding[ -]?box(?:es)?\b|\bbbox(?:es)?\b",
        r"\bred[ -](?:coloured |colored |bounding[ -]?)?" + SHAPE + r"\b",
        r"\brectangles?\b",
        r"\bred[ -](?:outlined|boxed|marked|circled|framed|bordered|highlight\w*)\b",
        r"\b" + MARKED + " " + PLACED + r"(?:red|box|rectangle|outline|colou?r)",
        r"\b(?:the|an?) (?:highlighted|marked|outlined|boxed|circled|annotated|delineated) \w+",
        r"\b(?:shown|indicated|denoted|displayed|identified) (?:in red\b|by (?:the |an? )?(?:red\b|box|outline|lines?\b))",
        r"\b(?:in|within|inside|by) the (?:red )?box(?:es)?\b",
        # a red square itself may be a thing
        r"\b(?:in|within|inside|by) (?:the|an?) red (?:squares?|circles?|frames?|lines?)\b",
        r"\b(?:drawn|overlaid|superimposed|marked|annotated) (?:box|outline|rectangle)",
        r"\b(?:box|outline)(?:es|s)? (?:drawn|overlaid|superimposed|around|surrounding) ",
        r"\b(?:the|by|an?) (?:visual )?annotations?\b",
    )
)
OPENING = re.compile(
    r"^(?:(?:in|within|inside|by) )?(?:the|an?) "
)  # an expression need not have these words in front of its own

REFERENCE = r"(?:frame|timestamp|time|second|t)s?(?: (?:at|number|with|timestamp|time|second|of))*[ =:]*(\d+)"
NAMED_BEFORE = re.compile(
    REFERENCE + r"(?: seconds?| s)? (?:is|was|makes|serves as|acts as|stands as)(?: \w+){0,4} key[ -]?frame\b",
    re.IGNORECASE,
)
NAMED_AFTER = re.compile(
    r"\bkey[ -]?frame(?:'s)?(?: (?:timestamp|time|frame|is|at|the(?= (?:timestamp|time|frame|second))|of|in|a|as|being|second|t))*"
    r"[ =:]*(\d+)",
    re.IGNORECASE,
)


def tidy_answer(text: str) -> str:
    """The answer without the private thinking that a reasoning model's server may leave in front of it, and without
    outer white space.
    """
    return OWN_THINKING.sub("", text, count=1).strip()


def check_answer(text: str, keyframe: int, expression: str, max_words: int = 500) -> str | None:
    """Why an answer cannot be used, or None when it can.

    Args:
        text: the answer, tidied.
        keyframe: the time of the given keyframe in seconds.
        expression: the description; words that it uses itself (a target may BE a red box) betray nothing.
        max_words: the longest usable answer; the student has 1,024 tokens for the reasoning and the boxes.
    """
    if not text:
        return "it was empty"
    if len(text.split()) > max_words:
        return f"it was longer than {max_words} words"
    if found := MARKUP.search(text):
        return f"it contained the markup {found.group()}"
    return _check_steps(text) or _check_keyframe(text, keyframe) or _check_betrayal(text, expression)


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


def _check_keyframe(text: str, keyframe: int) -> str | None:
    reasons = text[list(STEP.finditer(text))[1].end() :]  # steps 2 and 3
    if not re.search(rf"(?<![\d.,]){keyframe}(?![\d]|[.,]\d)", reasons):
        return f"it did not name the given keyframe, {keyframe}"
    for pattern in (NAMED_BEFORE, NAMED_AFTER):
        for found in pattern.finditer(text):
            if int(found.group(1)) != keyframe:
                return f"it named {found.group(1)} as the keyframe instead of {keyframe}"
    return None


def _check_betrayal(text: str, expression: str) -> str | None:
    described = expression.lower()
    for pattern in BETRAYALS:
        for found in pattern.finditer(text):
            if OPENING.sub("", found.group().lower()) not in described:
                return f'it mentioned what was drawn onto the frames ("{found.group().strip()}")'
    return None
