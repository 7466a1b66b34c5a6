"""Which answers of the teacher pass the checks, and the reasons for those that do not."""

import time

import pytest

from training_data_construction.reasoning_prompts import ABSENT_EXAMPLES, WORKED_EXAMPLES
from training_data_construction.teacher_checks import check_answer, strip_thinking

GOOD = (
    "Step 1: A dog runs over the grass and a cat watches from a box.\n"
    "Step 2: The frame at 12 seconds shows the whole dog, whereas in frame 3 it is far away.\n"
    "Step 3: The dog leaps in the middle of the picture."
)


def test_worked_examples_pass_their_own_checks():
    for example in (*WORKED_EXAMPLES, *ABSENT_EXAMPLES):
        heading, keyframe, answer = example.split("\n", 2)
        assert check_answer(answer.strip(), int(keyframe.removeprefix("Keyframe: ")), heading) is None


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("Step 1:", "**Step 1:**").replace("Step 2:", "### Step 2."),
        GOOD.replace("\n", "\n\n").lower(),
        GOOD.replace("At", "at") + " The keyframe at 12 s is sharp.",
        GOOD.replace("12 seconds", "timestamp 12.")
        + " A red frame house stands behind.".replace("red frame", "timber"),
    ],
)
def test_accepted(text):
    assert check_answer(text, 12, "the dog") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it was empty"),
        (GOOD.replace("Step 3", "Finally"), "exactly Step 1, Step 2 and Step 3"),
        (GOOD + "\nStep 4: The end of the video.", "exactly Step 1, Step 2 and Step 3"),
        (GOOD.replace("Step 2", "Step 9").replace("Step 3", "Step 2").replace("Step 9", "Step 3"), "exactly Step 1"),
        ("Sure, here it is.\n" + GOOD, "text before Step 1"),
        (GOOD.replace(" The dog leaps in the middle of the picture.", ""), "Step 3 said nothing"),
        (GOOD.replace("12", "11"), "did not name the given keyframe, 12"),
        (GOOD.replace("12 seconds", "120 seconds"), "did not name the given keyframe, 12"),
        (GOOD.replace("12 seconds", "1.12 seconds"), "did not name the given keyframe, 12"),
        (GOOD + " Frame 3 is the better keyframe.", "named 3 as the keyframe instead of 12"),
        (GOOD + " So the keyframe is at time 3.", "named 3 as the keyframe instead of 12"),
        (GOOD.replace("The dog leaps", "The dog in the red box leaps"), "drawn onto the frames"),
        (GOOD.replace("The dog leaps", "The bounding box shows it"), "drawn onto the frames"),
        (GOOD.replace("The dog leaps", "The dog, marked with a rectangle, leaps"), "drawn onto the frames"),
        (GOOD.replace("The dog leaps", "The dog highlighted in red leaps"), "drawn onto the frames"),
        (GOOD.replace("The dog leaps", "The red outline shows it"), "drawn onto the frames"),
        (GOOD + "</think>", "markup </think>"),
        (GOOD + "<|im_end|>", "markup <|im_end|>"),
        (GOOD + " word" * 600, "longer than 500 words"),
    ],
)
def test_refused_with_the_reason(text, reason):
    assert reason in (check_answer(text, 12, "the dog") or "")


@pytest.mark.parametrize(
    "words",
    [
        "The highlighted person",
        "The marked dog",
        "The red-outlined dog",
        "The red-boxed dog",
        "The dog in the red square",
    ]
    + [
        "The dog within the box",
        "The dog under the red highlight",
        "The dog shown in red",
        "The dog indicated by the red lines",
    ]
    + ["The dog, as indicated by the box,", "The dog in the red frame"],
)
def test_mentions_of_the_drawn_boxes_are_found(words):
    assert "drawn onto the frames" in (
        check_answer(GOOD.replace("The dog leaps", f"{words} leaps"), 12, "the dog") or ""
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "In the keyframe the 2 dogs run.",
        "Her glasses with red frames shine.",
        "A red square stands behind it.",
        "A red line bus passes.",
    ],
)
def test_similar_phrases_are_accepted(sentence):
    assert check_answer(f"{GOOD} {sentence}", 12, "the dog") is None


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("marked dog", "The marked dog"),
        ("What lies inside a box?", "The cat in the box"),
        ("a red square", "The dot in the red square"),
    ],
)
def test_prefixes_do_not_matter_in_phrases_of_the_description(expression, words):
    assert check_answer(GOOD.replace("The dog", words), 12, expression) is None


def test_the_keyframe_may_be_named_in_many_ways():
    for way in ("The keyframe is at the time 3.", "The keyframe is the frame at 3.", "The keyframe's timestamp is 3."):
        assert "named 3 as the keyframe" in (check_answer(f"{GOOD} {way}", 12, "the dog") or ""), way


def test_phrases_of_the_description_are_allowed():
    text = GOOD.replace("The dog leaps", "The red box falls")
    assert check_answer(text, 12, "the red box that falls off the shelf") is None
    assert check_answer(text, 12, "what falls off the shelf")


def test_a_reasoning_models_think_block_is_removed():
    assert strip_thinking(f"<think>hm, the red box</think>\n\n{GOOD}\n") == GOOD


@pytest.mark.parametrize("start", ["", GOOD], ids=["alone", "after an answer"])
@pytest.mark.parametrize(
    "piece",
    ["Step 1 ", "step 1:\n", "frame at ", "keyframe is at the frame ", "<think>", "red ", " \t\n", "#*>-_ "],
)
def test_hostile_text_takes_linear_time(piece, start):
    def seconds(count):
        begun = time.thread_time()  # of this thread alone: other work on the machine does not count
        check_answer(start + piece * count, 12, "the dog", max_words=10**9)
        return time.thread_time() - begun

    # 4 times in linear time, 16 times in square; the clock of a busy core may be wrong once
    assert any(seconds(20_000) < 8 * max(seconds(5_000), 0.02) for _ in range(3))
