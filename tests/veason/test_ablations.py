"""The paper's ablations as switches: frame indices, a fixed keyframe, the keyframe alone, no reasoning."""

import json

import numpy as np
import pytest
from PIL import Image
from small_revos import FRAMES

from tests.score_answer import score_answer
from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from training_data_construction.cot_records import build_record
from training_data_construction.teacher_tasks import plan_tasks
from veason.answers import format_answer
from veason.data.training import build_training_data
from veason.data.training_split import open_training_split
from veason.errors import DataError
from veason.frames import anchored_frames, shown_timestamps
from veason.inference.prediction import KEYFRAME_OUTSIDE
from veason.inference.segmenter import Segmenter
from veason.prompts import NO_REASONING_TEMPLATE, load_template


def data(revos, **options):
    return build_training_data(train_files=str(revos), keyframe_resize=56, **options)


def texts(messages):
    return [part["text"] for part in messages[1]["content"] if part["type"] == "text"]


def test_relative_frame_indices(revos):
    absolute, relative = data(revos), data(revos, timestamp_mode="relative")
    one, other = absolute.example(0, 3), relative.example(0, 3)
    assert one.ground_truth.timestamps[-1] > 4 and other.ground_truth.timestamps == list(
        range(len(one.ground_truth.timestamps))
    )
    assert np.array_equal(one.ground_truth.masks, other.ground_truth.masks)
    assert one.ground_truth.boxes == other.ground_truth.boxes
    assert [np.array(image).tolist() for image in one.images] == [np.array(image).tolist() for image in other.images]
    assert texts(other.messages)[:2] == ["(0s)", ", (1s)"]
    assert relative.messages_and_sizes(0, 3)[0] == other.messages
    answer = format_answer("x", 1, other.ground_truth.boxes[1])
    assert score_answer(answer, other.ground_truth, None, "no_sam2").parts["spatial"] == 1
    assert shown_timestamps([3, 7, 11]) == [3, 7, 11] and shown_timestamps([3, 7, 11], "relative") == [0, 1, 2]


def test_relative_frame_indices_at_inference():
    frames = [Image.new("RGB", (80, 48)) for _ in range(20)]
    policy = ScriptedPolicy(format_answer("x", 2, [[0, 0, 280, 280]]), format_answer("x", 5, [[0, 0, 280, 280]]))
    segmenter = Segmenter(policy, BoxTracker(), 5, 560, None, "strict", "relative")
    arrays = [np.asarray(frame) for frame in frames]
    (question,) = segmenter.build_prompts(arrays, ["x"])
    assert texts(question.messages)[:3] == ["(0s)", ", (1s)", ", (2s)"]
    first, second = (segmenter.parse_answer(policy.generate([None])[0], (20, 48, 80)) for _ in range(2))
    assert first.keyframe == 9 and first.failure is None  # the third of frames 0, 4, 9, 14, 19
    assert second.failure == KEYFRAME_OUTSIDE


def test_a_fixed_keyframe(revos):
    """The first frame with the target is among the frames of every seed; object 0 of the set appears in frame 2."""
    areas = np.array([0, 0, 1, 9, 9, 9, 9, 9, 9, 9])
    for seed in range(5):
        assert anchored_frames(areas, 1, np.random.default_rng(seed), "first") == (2, [2])
        assert anchored_frames(areas, 4, np.random.default_rng(seed), "first") == (2, [2, 6])
    fixed = data(revos, anchor_frame="first", sampled_frames=1)
    assert {tuple(fixed.example(0, seed).ground_truth.timestamps) for seed in range(5)} == {(2,)}
    free = data(revos, sampled_frames=1)
    drawn = {tuple(free.example(0, seed).ground_truth.timestamps) for seed in range(20)}
    assert len(drawn) > 2 and drawn <= {(t,) for t in range(7, FRAMES)}  # one of the five with the largest target


def test_no_reasoning(revos):
    plain = data(revos, reasoning=False)
    example = plain.example(0, 1)
    assert "think" not in "".join(texts(example.messages)) and load_template(None, False) == NO_REASONING_TEMPLATE
    answer = format_answer("x", example.ground_truth.timestamps[0], example.ground_truth.boxes[0])
    bare = answer.partition("</think>")[2].strip()
    scored = score_answer(bare, example.ground_truth, lambda *_: example.ground_truth.masks, "no_reasoning")
    assert scored.parts["format"] == 2 and scored.parts["spatial"] == scored.parts["consistency"] == 1
    with_thinking = f"<think>x</think>{bare}"
    scored = score_answer(with_thinking, example.ground_truth, lambda *_: example.ground_truth.masks, "no_reasoning")
    assert scored.parts["format"] == 1
    assert score_answer(bare, example.ground_truth, None, "no_sam2").parts["format"] == 1


@pytest.fixture
def records(revos, tmp_path):
    """records(**options of the teacher) -> the file of records"""

    def write(**options):
        benchmark = open_training_split("revos", revos, "meta_expressions_train_.json")
        tasks, _ = plan_tasks(benchmark, seed=0, **options)
        path = tmp_path / "cot.json"
        found = [build_record(task, f"Step 2: {task.keyframe_timestamp}", 56) for task in tasks]
        path.write_text(json.dumps(found))
        return path, tasks

    return write


def test_records_with_relative_times_and_a_fixed_keyframe(revos, records):
    path, tasks = records(timestamp_mode="relative", anchor_frame="first")
    assert tasks[0].keyframe == 2 and tasks[0].keyframe_timestamp == tasks[0].frame_ids.index(2)
    section = {"name": "cot", "meta_file": str(path)}
    example = data(revos, timestamp_mode="relative", **section).example(0, 0)
    assert example.ground_truth.timestamps == list(range(len(example.images)))
    assert f'"keyframe_timestamp": {tasks[0].keyframe_timestamp}' in example.response
    with pytest.raises(
        DataError, match=r"a/0: the record's timestamp_mode is 'relative', data\.timestamp_mode is absolute"
    ):
        data(revos, **section)
    earlier = path.read_text().replace('"timestamp_mode"', '"frame_index"')  # the field's earlier name
    path.write_text(earlier)
    assert data(revos, timestamp_mode="relative", **section).example(0, 0).response == example.response


def test_responses_without_reasoning(revos, records):
    path, _ = records()
    without = data(revos, name="cot", meta_file=str(path), reasoning=False)
    assert without.response(0) == without.example(0, 0).response
    assert without.response(0).startswith("<answer>") and "think" not in without.response(0)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"timestamp_mode": "none"}, "data.timestamp_mode is 'none'; it can be absolute or relative"),
        ({"anchor_frame": "last"}, "data.anchor_frame is 'last'; it can be largest or first"),
    ],
)
def test_wrong_choices_are_named(revos, option, says):
    with pytest.raises(DataError, match=says):
        data(revos, **option)


def test_a_data_set_that_knows_no_ablation_says_so():
    with pytest.raises(DataError, match=r"data\.anchor_frame=first: data\.name=.*OnlineToyData does not take it"):
        build_training_data(
            name="veason.toy.online_data:OnlineToyData", train_files="unused", keyframe_resize=112, anchor_frame="first"
        )
