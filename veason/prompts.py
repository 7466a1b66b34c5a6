"""The one prompt of the project: for supervised fine-tuning, GRPO, evaluation and the teacher's records.

Weights trained elsewhere need the wording that they were trained with: `data.prompt_template` replaces
`DEFAULT_TEMPLATE`, with the same placeholders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from veason.errors import DataError
from veason.files import read_text_file

SYSTEM_PROMPT = "You are a helpful assistant."

DEFAULT_TEMPLATE = """\
These are {count} frames of one video, in order; the time in seconds stands before each frame.
Find every object that this expression refers to: "{expression}"
Choose the one frame in which the target is seen best, then give a bounding box for each target object in that frame.
Boxes are [x1, y1, x2, y2] in {coordinates}.
If nothing in the video fits the expression, give an empty list of boxes.
First reason inside <think> </think>, then answer inside <answer> </answer> with one JSON object:
<think>your reasoning</think><answer>{"keyframe_timestamp": time, "bbox_2d_list": [[x1, y1, x2, y2]]}</answer>"""

# For the rule veason_points and answer_parser=points (`veason.point_answers`).
POINTS_TEMPLATE = """\
These are {count} frames of one video, in order; the time in seconds stands before each frame.
Find every object that this expression refers to: "{expression}"
For each target object choose the frame in which it is seen best, or a few of them. In each of these frames give its \
bounding box [x1, y1, x2, y2], points [x, y] on it, and points beside it where something else could be taken for it.
Boxes and points are in {coordinates}. All entries of one object have the same id; points may be left out.
If nothing in the video fits the expression, give an empty list of objects.
First reason inside <think> </think>, then answer inside <answer> </answer> with one JSON object:
<think>your reasoning</think><answer>{"objects": [{"id": 1, "keyframe_timestamp": time, "bbox_2d": [x1, y1, x2, y2], \
"points_2d": [[x, y]], "negative_points_2d": [[x, y]]}]}</answer>"""

# The paper's ablation without reasoning (data.reasoning: false).
NO_REASONING_TEMPLATE = DEFAULT_TEMPLATE.replace(
    "First reason inside <think> </think>, then answer inside", "Answer inside"
).replace("<think>your reasoning</think>", "")

Message = dict[str, Any]


def clean_expression(text: str) -> str:
    """Lower case, without the final period: the form in which an expression is shown to the policy."""
    return text.strip().lower().strip(".").strip()


def load_template(template: str | Path | None, reasoning: bool = True) -> str:
    """The prompt's text.

    Args:
        template: None for the default, a text with `{expression}`, or a path to a text file.
        reasoning: whether the default asks for it.

    Raises:
        DataError: the file is missing, or its text has no `{expression}`.
    """
    if template is None:
        return DEFAULT_TEMPLATE if reasoning else NO_REASONING_TEMPLATE
    if "{expression}" in str(template):
        return str(template)
    path = Path(template)
    if not path.is_file():
        raise DataError(f"prompt template {str(template)!r} is neither a text with {{expression}} nor a file")
    text = read_text_file(path, "prompt template").rstrip("\n")
    if "{expression}" not in text:
        raise DataError(f"prompt template {path} has no {{expression}}")
    return text


def build_messages(
    expression: str,
    timestamps: Sequence[int],
    template: str | None = None,
    size: tuple[int, int] = (560, 560),
    coordinate_range: int | None = None,
) -> list[Message]:
    """The chat of one question: a system turn, then a user turn, each frame after its timestamp and the question last.

    Args:
        expression: as in the data set; it is normalized here.
        timestamps: of the frames, in seconds, in the order of the images (`veason.frames.shown_timestamps`).
        template: text or path, see `load_template`. Placeholders: {expression}, {count}, {coordinates} (what boxes are
            in, in words), {width} and {height} (the ends of their range); other braces stay as they
            are.
        size: height and width of the frames that the policy sees, in pixels.
        coordinate_range: coordinates are from 0 to this; None: pixels of the frames.

    Returns:
        Messages whose images are bare `{"type": "image"}` placeholders, one per timestamp.
    """
    height, width = size if coordinate_range is None else (coordinate_range, coordinate_range)
    pixels, relative = "pixels of the {width} x {height} frames", "coordinates from 0 to {width}, relative to the frame"
    question = load_template(template)
    for name, value in (
        ("count", len(timestamps)),
        ("coordinates", pixels if coordinate_range is None else relative),
        ("width", width),
        ("height", height),
        ("expression", clean_expression(expression)),
    ):
        question = question.replace(f"{{{name}}}", str(value))

    content: list[Message] = []
    for position, timestamp in enumerate(timestamps):
        content.append({"type": "text", "text": f"({timestamp}s)" if position == 0 else f", ({timestamp}s)"})
        content.append({"type": "image"})
    content.append({"type": "text", "text": f" \n{question}"})
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
        {"role": "user", "content": content},
    ]
