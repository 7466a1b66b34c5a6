"""Answers with points and several keyframes: the prompt that asks for them, parsing, tracking, prediction and page."""

import json

import numpy as np
import pytest

from tests.point_answer_text import format_point_answer
from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from tests.veason.videos import write_folder
from veason.answers import BAD_BOXES, BAD_JSON, BAD_KEYFRAME, NO_ANSWER, ObjectKeyframe, parse_answer
from veason.errors import DataError
from veason.inference.correction import track_again
from veason.inference.model_options import ModelOptions
from veason.inference.segmenter import Segmenter
from veason.inference_settings import parse_settings
from veason.point_answers import parse_point_answer
from veason.predict import command as predict
from veason.predict.clips import ClipRequest
from veason.prompts import DEFAULT_TEMPLATE, POINTS_TEMPLATE, build_messages
from veason.tracking import check_takes_points
from veason.tracking.base import BaseTracker
from veason.tracking.tracker_prompts import FramePrompt, MultiObjectPrompt
from veason.video.sources import open_folder

OBJECTS = (
    (
        ObjectKeyframe(3, (56.0, 56.0, 280.0, 280.0), ((100.0, 100.0),), ((300.0, 20.0),)),
        ObjectKeyframe(0, None, ((70.0, 70.0),)),
    ),
    (ObjectKeyframe(3, (300.0, 300.0, 500.0, 500.0)),),
)
TEXT = format_point_answer("Two of them.", OBJECTS)


class PointTracker(BaseTracker):
    """Fills boxes and single pixels on every frame, and keeps what it was given."""

    takes_points = True
    given = ()

    def track(self, read_frame, total, keyframe, boxes):
        raise AssertionError("boxes alone")

    def track_objects(self, read_frame, total, objects):
        self.given = [*self.given, *objects]
        mask = np.zeros(read_frame(0).shape[:2], bool)
        for each in (each for item in objects for each in item):
            if each.box is not None:
                x1, y1, x2, y2 = each.box.astype(int)
                mask[y1:y2, x1:x2] = True
            for (x, y), label in zip(each.points.astype(int), each.labels):
                mask[y, x] = label
        yield from ((frame, mask) for frame in range(total))


def text_of(messages):
    return messages[-1]["content"][-1]["text"]


def test_the_prompt_asks_for_points():
    """The published format's prompt stays as it is; sizes and coordinate_range are said as there."""
    asked = text_of(build_messages("The ducks.", [0, 4], POINTS_TEMPLATE, (448, 448), None))
    assert 'refers to: "the ducks"' in asked and "Boxes and points are in pixels of the 448 x 448 frames" in asked
    for key in ("objects", "id", "keyframe_timestamp", "bbox_2d", "points_2d", "negative_points_2d"):
        assert f'"{key}":' in asked
    relative = text_of(build_messages("x", [0], POINTS_TEMPLATE, (448, 448), 1000))
    assert "coordinates from 0 to 1000, relative to the frame" in relative
    assert "points" not in DEFAULT_TEMPLATE and text_of(build_messages("x", [0])) == text_of(
        build_messages("x", [0], DEFAULT_TEMPLATE)
    )
    example = asked[asked.index("<think>your") :].replace(": time", ": 4")
    for name, value in (("x1", 1), ("y1", 2), ("x2", 3), ("y2", 4), ("x,", "5,"), (" y]", " 6]")):
        example = example.replace(name, str(value))
    assert parse_point_answer(example).objects == ((ObjectKeyframe(4, (1, 2, 3, 4), ((5, 6),), ((5, 6),)),),)


def test_what_is_written_is_read():
    answer = parse_point_answer(TEXT)
    assert (answer.objects, answer.thinking, answer.failure, answer.num_listed) == (OBJECTS, "Two of them.", None, 3)
    assert answer.keyframe_timestamp == 3 and answer.boxes == (OBJECTS[0][0].box, OBJECTS[1][0].box)
    assert parse_answer(TEXT).failure is not None  # the other format


def answer_of(*entries):
    return f"<think>.</think><answer>{json.dumps({'objects': list(entries)})}</answer>"


GOOD = {"id": 1, "keyframe_timestamp": 4, "bbox_2d": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    "changed",
    [
        {"id": True},
        {"id": "1"},
        {"id": -1},
        {"keyframe_timestamp": 4.5},
        {"keyframe_timestamp": "4"},
        {"keyframe_timestamp": True},
        {"bbox_2d": [1, 2, 3]},
        {"bbox_2d": [3, 2, 1, 4]},
        {"bbox_2d": [0, 0, 0, 0]},
        {"bbox_2d": None},
        {"bbox_2d": None, "negative_points_2d": [[1, 1]]},
        {"points_2d": [[1]]},
        {"points_2d": 5},
        {"points_2d": [[1, 10**400]]},
        {"negative_points_2d": [[1, "2"]]},
    ],
)
def test_entries_that_cannot_be_used_are_dropped(changed):
    bad = {**GOOD, **changed}
    answer = parse_point_answer(answer_of(bad, GOOD, 7))
    assert answer.objects == ((ObjectKeyframe(4, (1, 2, 3, 4)),),) and answer.num_listed == 3
    assert parse_point_answer(answer_of(bad)).failure in (BAD_BOXES, BAD_KEYFRAME)


def test_ids_join_entries_and_the_first_of_a_frame_counts():
    point = {"keyframe_timestamp": 4.0, "points_2d": [[1, 2]]}
    answer = parse_point_answer(
        answer_of(GOOD, {**GOOD, "keyframe_timestamp": 9}, {**GOOD, "bbox_2d": [9, 9, 10, 10]}, point)
    )
    assert [[each.timestamp for each in item] for item in answer.objects] == [[4, 9], [4]]
    assert answer.objects[0][0].box == (1, 2, 3, 4) and answer.objects[1][0].points == ((1, 2),)
    many = parse_point_answer(answer_of(*[point] * 200, {**GOOD, "points_2d": [[1, 1]] * 50}))
    assert len(many.objects) == 120 and many.num_listed == 201
    assert len(parse_point_answer(answer_of({**GOOD, "points_2d": [[1, 1]] * 50})).objects[0][0].points) == 16


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("what?", NO_ANSWER),
        ("<answer>[</answer>", BAD_JSON),
        ('<answer>{"objects": 3}</answer>', BAD_BOXES),
        (answer_of({"id": 1, "bbox_2d": [1, 2, 3, 4]}), BAD_KEYFRAME),
        (answer_of(), None),  # the target is absent
    ],
)
def test_failures_have_names(text, failure):
    answer = parse_point_answer(text)
    assert (answer.failure, answer.objects, answer.num_listed > 0) == (failure, (), failure == BAD_KEYFRAME)


def segment(text, tracker=None, total=6, **options):
    frames = [np.zeros((60, 120, 3), np.uint8)] * total
    tracker = tracker or PointTracker()
    return tracker, Segmenter(ScriptedPolicy(text), tracker, answer_parser="points", **options).segment(
        frames, "the ducks"
    )


def test_boxes_and_points_reach_the_tracker_in_pixels_of_the_video():
    tracker, result = segment(TEXT)
    first, second = tracker.given
    assert [each.frame for each in first] == [0, 3] and second[0].box.tolist() == [64, 32, 107, 54]
    np.testing.assert_allclose(first[0].points, [[15, 7.5]])
    np.testing.assert_allclose(first[1].points, [[100 * 120 / 560, 100 * 60 / 560], [300 * 120 / 560, 20 * 60 / 560]])
    assert first[1].labels.tolist() == [1, 0] and first[1].box.tolist() == [12, 6, 60, 30]
    prediction = result.prediction
    assert prediction.keyframe == 3 and prediction.boxes == ((12, 6, 60, 30), (64, 32, 107, 54))
    assert prediction.outcome == "2 objects, keyframes 0, 3" and len(result.tracks) == 2
    assert result.masks[:, 6:30, 12:60].all() and result.masks[:, 32:54, 64:107].all() and result.masks[0, 7, 15]
    # the evaluation tracks the union as one prompt: the same mask
    segmenter = Segmenter(ScriptedPolicy(), PointTracker(), answer_parser="points")
    (masks,) = segmenter.track_all(result.frames, [prediction])
    assert np.array_equal(np.stack([mask for _, mask in masks]), result.masks)


def test_relative_frames_and_coordinates_outside_the_video():
    far = (ObjectKeyframe(99, (1.0, 1.0, 9.0, 9.0)),), (ObjectKeyframe(1, None, ((600.0, 5.0),)),)
    assert segment(format_point_answer("", far))[1].prediction.failure == "no_target"
    assert segment(format_point_answer("", far[:1]))[1].prediction.failure == "keyframe_outside"
    tracker, result = segment(format_point_answer("", (*far, *OBJECTS[1:])))
    assert len(tracker.given) == len(result.prediction.boxes) == 1
    relative = format_point_answer("", [[ObjectKeyframe(1, None, ((56.0, 28.0),))]])
    tracker, result = segment(relative, timestamp_mode="relative", sampled_frames=3)  # of 6 frames 0, 2 and 5
    assert tracker.given[0][0].frame == result.prediction.keyframe == 2
    assert result.prediction.boxes == ((12, 3, 13, 4),) and result.prediction.outcome == "1 object, keyframe 2"
    assert segment(answer_of())[1].prediction.failure == "no_target"


def test_a_tracker_without_points_is_refused_by_name():
    plain = format_point_answer("", OBJECTS[1:])  # boxes on one keyframe: any tracker takes them
    assert segment(plain, BoxTracker())[1].masks[:, 32:54, 64:107].all()
    with pytest.raises(DataError, match="BoxTracker takes boxes on one keyframe, no points and no further keyframes"):
        segment(TEXT, BoxTracker())
    check_takes_points("sam2", "answer_parser=points")
    with pytest.raises(DataError, match=r"scripted_parts:BoxTracker takes boxes on one keyframe and no points: here"):
        check_takes_points("tests.veason.scripted_parts:BoxTracker", "here")
    pretrained = ModelOptions(None, "tests.veason.scripted_parts:BoxTracker", answer_parser="points")
    with pytest.raises(DataError, match="no points: answer_parser=points"):
        pretrained.check()


def test_the_result_and_its_page_show_points(tmp_path):
    frames = open_folder(write_folder(tmp_path / "in", 6, (60, 120)))
    segmenter = Segmenter(ScriptedPolicy(TEXT), PointTracker(), answer_parser="points")
    predict.predict_clip(segmenter, frames, ClipRequest(str(tmp_path / "in"), ("the ducks",)), tmp_path / "out")
    page = (tmp_path / "out" / "00" / "index.html").read_text()
    assert (
        "box and 2 points on frame 3" in page and "1 point on frame 0" in page and "2 objects, keyframes 0, 3" in page
    )
    result = json.loads((tmp_path / "out" / "00" / "result.json").read_text())
    assert result["objects"][0][0] == {
        "frame": 3,
        "box": [12, 6, 60, 30],
        "points": [[100 * 120 / 560, 100 * 60 / 560], [300 * 120 / 560, 20 * 60 / 560]],
        "labels": [1, 0],
    }
    boxes_only = segment(format_point_answer("", OBJECTS[1:]))[1].overlay().picture(3)
    with_points = segment(TEXT)[1].overlay()
    assert not np.array_equal(with_points.picture(0), with_points.picture(1))  # a point is drawn on its own frame
    assert not np.array_equal(boxes_only, with_points.picture(3))


def test_a_correction_replaces_the_points():
    tracker, result = segment(TEXT)
    again = track_again(tracker, result, [FramePrompt(1, np.array([0.0, 0, 10, 10]))])
    assert again.prediction.objects == () and again.prediction.outcome == "1 object, keyframe 1"
    assert isinstance(result.prediction.prompt, MultiObjectPrompt)


def test_a_checkpoint_says_that_it_answers_with_points():
    settings = parse_settings({"answer_parser": "points", "prompt_template": POINTS_TEMPLATE}, "veason.json")
    assert settings.answer_parser == "points"
