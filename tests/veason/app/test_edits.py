"""Boxes and points on a frame, and a session that tracks them; without Gradio and without models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from tests.veason.videos import moving, write_video
from veason.answers import format_answer
from veason.app.edits import BESIDE_OBJECT, NEW_OBJECT, ON_OBJECT, EditedObject, FrameEdits, box_at, pixel_at
from veason.app.user_session import UserSession, create_session, open_upload, stream_answer
from veason.errors import DataError
from veason.inference.segmenter import Segmenter

FRAMES = np.zeros((6, 40, 60, 3), np.uint8)
ANSWER = format_answer("it is there", 3, [[56, 56, 280, 280]])


@pytest.fixture
def segmenter():
    return Segmenter(ScriptedPolicy(ANSWER), BoxTracker())


@pytest.fixture
def session(segmenter, tmp_path):
    (answer,) = stream_answer(segmenter, FRAMES, "the duck")
    return create_session(segmenter, FRAMES, "the duck", answer, 1.5, tmp_path)


def test_a_box_is_a_new_object_or_replaces_that_of_one():
    edits = FrameEdits(2).add_box((4, 5, 21, 10), NEW_OBJECT)
    assert edits == FrameEdits(2, (EditedObject((4, 5, 21, 10)),))
    edits, name = edits.add_point((7, 8), ON_OBJECT, "object 1")
    edits = edits.add_box((1, 1, 3, 3), name).add_box((0, 0, 9, 9), "object 7")
    assert edits.objects == (EditedObject((1, 1, 3, 3), (((7, 8), True),)), EditedObject((0, 0, 9, 9)))


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ([0.25, 0.5, 0.5, 0.75], (15, 20, 30, 30)),
        ([0.5, 0.75, 0.25, 0.5], (15, 20, 30, 30)),  # from the lower right
        ([-2, 0.1, 1.7, 7], (0, 4, 60, 40)),
        ([0.5, 0.5, 0.5, 0.5], (30, 20, 31, 21)),  # never without an area
        ([1, 1, 1, 1.0], (59, 39, 60, 40)),
    ],
)
def test_a_dragged_box_is_in_pixels_of_the_frame(corners, box):
    assert box_at(corners, (40, 60)) == box


def test_a_click_is_a_pixel_of_the_frame():
    assert [pixel_at(place, (40, 60)) for place in ([0, 0], [0.999, 0.08], [1, 3], [-1, 0.5])] == [
        (0, 0),
        (59, 3),
        (59, 39),
        (0, 20),
    ]


@pytest.mark.parametrize("place", [None, "ab", [0.5], [0.5, None], [0.5, math.nan], [0.5, "0.5"], {"x": 1}])
def test_what_is_no_place_is_refused(place, session):
    with pytest.raises(DataError, match="2 numbers are needed"):
        session.add_point(place, ON_OBJECT, NEW_OBJECT)
    with pytest.raises(DataError, match="4 numbers are needed"):
        session.add_box(place, NEW_OBJECT)
    assert session.edits == FrameEdits(3, (EditedObject((6, 4, 30, 20)),))


def test_points_belong_to_the_object_that_is_chosen():
    edits, following = FrameEdits(0).add_point((3, 4), ON_OBJECT, NEW_OBJECT)
    assert following == "object 1"
    edits, _ = edits.add_point((7, 8), BESIDE_OBJECT, following)
    edits, _ = edits.add_point((9, 9), ON_OBJECT, NEW_OBJECT)
    assert edits.names == [NEW_OBJECT, "object 1", "object 2"]
    first, second = edits.prompts()
    assert first.box is None and first.points.tolist() == [[3, 4], [7, 8]] and first.labels.tolist() == [1, 0]
    assert second.points.tolist() == [[9, 9]] and second.frame == 0
    assert edits.remove("object 1").prompts()[0].points.tolist() == [[9, 9]]
    assert edits.remove(NEW_OBJECT) == FrameEdits(0)


def test_a_box_and_points_are_drawn():
    edits = FrameEdits(0, (EditedObject((10, 10, 30, 30)), EditedObject(None, (((50, 20), True), ((5, 5), False)))))
    plain = np.zeros((80, 120, 3), np.uint8)
    drawn = edits.draw(plain, 2)
    assert not plain.any() and drawn[20, 40].any() and drawn[41, 101].any()


def test_a_session_holds_the_answer_and_its_corrections(session, segmenter):
    assert session.edits == FrameEdits(3, (EditedObject((6, 4, 30, 20)),)) and session.scale == 12
    before = session.edited_frame()
    assert before["boxes"] == [{"object": 0, "box": [0.1, 0.1, 0.5, 0.5]}] and (before["width"], before["height"]) == (
        60,
        40,
    )
    session.add_box([1 / 60, 2 / 40, 11 / 60, 12 / 40], "object 1")
    assert session.add_point([0.1, 0.1], ON_OBJECT, NEW_OBJECT) == "object 2"
    assert session.edits == FrameEdits(3, (EditedObject((1, 2, 11, 12)), EditedObject(None, (((6, 4), True),))))
    after = session.edited_frame()
    assert after["picture"] != before["picture"] and [each["object"] for each in after["boxes"]] == [0]
    session.edits = session.edits.remove("object 2")
    session.show(1)
    session.track(segmenter)
    assert (session.result.prediction.keyframe, session.result.prediction.boxes) == (1, ((1, 2, 11, 12),))
    assert session.result.masks.sum() == 6 * 100 and session.answered.masks.sum() == 6 * 24 * 16
    assert {path.name for path in session.folder.iterdir()} >= {"index.html", "overlay.mp4", "masks.zip"}
    session.reset()
    assert session.edits.frame == 3 and session.result is session.answered
    session.remove()
    assert not session.folder.exists()


def test_nothing_that_was_drawn_keeps_the_result(session, segmenter):
    session.edits = FrameEdits(0)
    with pytest.raises(DataError, match="no object to track"):
        session.track(segmenter)
    assert session.result is session.answered


def test_an_answer_without_boxes_can_be_corrected(tmp_path):
    segmenter = Segmenter(ScriptedPolicy("no idea"), BoxTracker())
    session: UserSession = create_session(segmenter, FRAMES, "the duck", "no idea", 0.0, tmp_path)
    assert session.edits == FrameEdits(0) and session.result.prediction.failure == "no_answer"
    session.edits = FrameEdits(0, (EditedObject((1, 2, 11, 12)),))
    session.track(segmenter)
    assert session.result.prediction.failure is None and session.result.masks.any()


def test_a_long_video_and_none_are_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving(12))
    assert len(open_upload(str(path), 12)) == 12
    with pytest.raises(DataError, match="more than 11 frames"):
        open_upload(str(path), 11)
    with pytest.raises(DataError, match="no video yet"):
        open_upload(None, 11)


def test_an_empty_expression_is_refused_before_the_policy_is_asked(segmenter):
    with pytest.raises(DataError, match="empty"):
        next(stream_answer(segmenter, FRAMES, "  "))
    assert segmenter.policy.questions == []
