"""A result is tracked again from boxes and points."""

from __future__ import annotations

import numpy as np
import pytest

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from veason.errors import DataError
from veason.inference.correction import track_again
from veason.inference.segmenter import Segmenter
from veason.tracking.tracker_prompts import FramePrompt

FRAMES = np.zeros((6, 40, 60, 3), np.uint8)


class PointTracker(BoxTracker):
    """A square of 5 pixels around the first positive point; nothing on the frames before the keyframe."""

    takes_points = True

    def track_objects(self, read_frame, total, objects):
        ((prompt,),) = objects
        for index in range(total):
            mask = np.zeros(read_frame(index).shape[:2], bool)
            if prompt.box is not None:
                x1, y1, x2, y2 = prompt.box.astype(int)
                mask[y1:y2, x1:x2] = True
            elif index >= prompt.frame and (prompt.points >= 3).all():
                x, y = prompt.points[list(prompt.labels).index(1)].astype(int)
                mask[y - 2 : y + 3, x - 2 : x + 3] = True
            yield index, mask


@pytest.fixture
def nothing():
    """A result whose answer could not be read."""
    return Segmenter(ScriptedPolicy("no idea"), BoxTracker()).segment(FRAMES, "the duck")


def test_boxes_replace_those_of_the_answer(nothing):
    prompts = [FramePrompt(2, np.array(box, float)) for box in ([3, 4, 20, 30], [30.2, -5, 90, 12.4])]
    result = track_again(BoxTracker(), nothing, prompts)
    assert (result.prediction.keyframe, result.prediction.failure) == (2, None)
    assert result.prediction.boxes == ((3, 4, 20, 30), (30, 0, 60, 12))
    assert (result.expression, result.prediction.text) == ("the duck", "no idea")
    assert [result.object_masks(5)[0].sum(), len(result.tracks)] == [17 * 26, 2]
    assert nothing.prediction.failure == "no_answer" and not nothing.masks.any()


def test_an_object_of_points_gets_the_box_of_its_mask(nothing):
    points = FramePrompt(1, None, np.array([[10.0, 20.0], [1.0, 3.0]]), np.array([1, 0]))
    empty = FramePrompt(1, None, np.array([[2.5, 1.0]]), np.array([1]))
    result = track_again(PointTracker(), nothing, [FramePrompt(1, None, points.points[:1], points.labels[:1]), empty])
    assert result.prediction.boxes == ((8, 18, 13, 23), (2, 1, 3, 2))
    assert result.masks.sum(axis=(1, 2)).tolist() == [0, 25, 25, 25, 25, 25]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([], "no object to track"),
        ([FramePrompt(0, np.array([1, 1, 5, 5])), FramePrompt(1, np.array([1, 1, 5, 5]))], r"several frames: \[0, 1\]"),
        ([FramePrompt(6, np.array([1, 1, 5, 5]))], "frame 6 is outside the video of 6 frames"),
        ([FramePrompt(0)], "object 1 has neither a box nor a positive point"),
        ([FramePrompt(0, np.array([5, 1, 5, 9]))], "no area inside the frame of 60 x 40"),
        ([FramePrompt(0, np.array([60, 1, 90, 9]))], "no area inside"),
        ([FramePrompt(0, np.array([1, 1, np.nan, 9]))], "not finite"),
        ([FramePrompt(0, None, np.array([[3.0, 3.0]]), np.array([1]))], "object 1 has points, and BoxTracker"),
    ],
)
def test_what_cannot_be_tracked_is_refused(nothing, objects, message):
    with pytest.raises(DataError, match=message):
        track_again(BoxTracker(), nothing, objects)
