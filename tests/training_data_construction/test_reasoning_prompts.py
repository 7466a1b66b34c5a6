"""The teacher's prompts: their exact text, and what a request contains."""

from __future__ import annotations

import hashlib

import pytest

from training_data_construction import reasoning_prompts
from training_data_construction.reasoning_prompts import build_reasoning_content

DIGEST = "78a0bae7271e1bd832c56234f09eaa2ef880bca03574bd6777028631d10d0e2d"


def test_the_text_is_unchanged() -> None:
    """Answers in a journal were given to this text; a new wording needs a new digest, and a line in the changelog."""
    texts = [
        reasoning_prompts.PROMPT,
        reasoning_prompts.ABSENT_PROMPT,
        *reasoning_prompts.WORKED_EXAMPLES,
        *reasoning_prompts.ABSENT_EXAMPLES,
        reasoning_prompts.EXAMPLE_HEADING,
        reasoning_prompts.REMINDER,
    ]
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest() == DIGEST


@pytest.mark.parametrize("absent", [False, True])
def test_a_request_has_the_frames_the_task_and_one_example(absent: bool) -> None:
    content = build_reasoning_content("the red box", [3, 8], 8, ["data:a", "data:b"], 1, absent, "it was empty")
    assert [part.get("text") for part in content[:4:2]] == ["[3 s]", "[8 s]"]
    assert [part["image_url"]["url"] for part in content[1:4:2]] == ["data:a", "data:b"]
    examples = reasoning_prompts.ABSENT_EXAMPLES if absent else reasoning_prompts.WORKED_EXAMPLES
    text = content[-1]["text"]
    assert "    the red box\n" in text
    assert ("a target that is NOT in this video" if absent else "The frame at 8 seconds is the keyframe") in text
    assert examples[1] in text and examples[0] not in text and "was not accepted: it was empty." in text
