"""The pipeline with a scripted policy and a tracker that fills its boxes: prompts, parsing, masks."""

import numpy as np
import pytest

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from veason.answers import format_answer
from veason.inference.prediction import KEYFRAME_OUTSIDE, NO_TARGET
from veason.inference.segmenter import Segmenter

TOTAL, HEIGHT, WIDTH = 20, 56, 112


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 255, (TOTAL, HEIGHT, WIDTH, 3), dtype=np.uint8)


def segment(frames, text):
    return Segmenter(ScriptedPolicy(text), BoxTracker()).segment(frames, "A Duck.")


def test_boxes_of_the_square_become_boxes_of_the_video(frames):
    result = segment(frames, format_answer("it is large", 3, [[100, 200, 300, 400], [0, 0, 50, 50]]))
    assert result.prediction.failure is None
    assert (result.prediction.thinking, result.prediction.keyframe) == ("it is large", 3)
    assert result.prediction.boxes == ((20, 20, 60, 40), (0, 0, 10, 5))
    assert result.masks.shape == (TOTAL, HEIGHT, WIDTH) and result.masks.dtype == bool
    assert result.masks.sum() == TOTAL * (40 * 20 + 10 * 5)


def test_what_the_policy_is_asked(frames):
    policy = ScriptedPolicy("", "")
    Segmenter(policy, BoxTracker()).segment_all(frames, ["A Duck.", "the pond"])
    question = policy.questions[0]
    assert [image.size for image in question.images] == [(560, 560)] * 8
    texts = [part["text"] for part in question.messages[1]["content"] if part["type"] == "text"]
    assert [int("".join(filter(str.isdigit, text))) for text in texts[:-1]] == [0, 2, 5, 8, 10, 13, 16, 19]
    assert "a duck" in texts[-1] and "A Duck" not in texts[-1]
    assert "the pond" in policy.questions[1].messages[1]["content"][-1]["text"]


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no_answer"),
        ("<think>x</think><answer>{</answer>", "bad_json"),
        ("<answer>[1]</answer>", "bad_json"),
        ('<answer>{"keyframe_timestamp": "soon", "bbox_2d_list": [[1, 2, 30, 40]]}</answer>', "bad_keyframe"),
        ('<answer>{"keyframe_timestamp": 1, "bbox_2d_list": "left"}</answer>', "bad_boxes"),
        (format_answer("", TOTAL, [[10, 10, 90, 90]]), KEYFRAME_OUTSIDE),
        (format_answer("", -1, [[10, 10, 90, 90]]), KEYFRAME_OUTSIDE),
        (format_answer("", 10**30, [[10, 10, 90, 90]]), KEYFRAME_OUTSIDE),
        (format_answer("", 1, []), NO_TARGET),
        (format_answer("", 1, [[0, 0, 0, 0]]), NO_TARGET),
        (format_answer("", 1, [[600, 600, 700, 700]]), NO_TARGET),  # beyond the picture
        (format_answer("", 1, [[7, 7, 7, 7]]), NO_TARGET),
    ],
)
def test_what_cannot_be_tracked_is_an_empty_mask(frames, text, failure):
    result = segment(frames, text)
    assert result.prediction.failure == failure
    assert result.prediction.text == text
    assert result.masks.shape == (TOTAL, HEIGHT, WIDTH) and not result.masks.any()


def test_enormous_boxes_end_at_the_frame(frames):
    result = segment(frames, format_answer("", 0, [[-1e300, 0, 1e300, 1e300]]))
    assert result.prediction.boxes == ((0, 0, WIDTH, HEIGHT),)
    assert result.masks.all()


@pytest.mark.parametrize(("total", "groups"), [(10, 1), (11, 0)])
def test_a_short_video_is_encoded_once_for_all_expressions(frames, total, groups):
    texts = [format_answer("", 2, [[0, 0, 100, 100]]), "what?", format_answer("", 7, [[0, 0, 560, 560]])]
    tracker = BoxTracker()
    results = Segmenter(ScriptedPolicy(*texts), tracker).segment_all(frames[:total], ["a", "b", "c"])
    assert [result.masks.mean() for result in results] == pytest.approx([20 * 10 / (HEIGHT * WIDTH), 0, 1])
    assert tracker.groups == groups
