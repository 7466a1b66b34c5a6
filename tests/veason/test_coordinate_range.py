"""Boxes relative to the frame (0 to 1000 for Qwen3-VL): prompt, records, reward and inference read the same one."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from scripted_parts import BoxTracker, ScriptedPolicy

from grpo_reward.rules import find_rule
from grpo_reward.scorer import RewardScorer
from training_data_construction.cot_records import build_record
from training_data_construction.teacher_tasks import plan_tasks
from veason.answers import format_answer, parse_answer
from veason.data.cot import CoTData
from veason.data.training import KeyframeTrainingData, build_training_data
from veason.data.training_split import open_training_split
from veason.errors import DataError
from veason.inference.segmenter import Segmenter
from veason.model_info import ModelInfo, read_model_info
from veason.prompts import build_messages
from veason.toy.online_data import OnlineToyData

SIZE, SIDE = 64, 1000


def question(messages):
    return messages[1]["content"][-1]["text"]


def test_the_prompt_says_what_boxes_are_in():
    pixels, relative = (question(build_messages("x", [0], None, (576, 576), side)) for side in (None, SIDE))
    assert "Boxes are [x1, y1, x2, y2] in pixels of the 576 x 576 frames." in pixels
    assert "Boxes are [x1, y1, x2, y2] in coordinates from 0 to 1000, relative to the frame." in relative
    assert pixels.splitlines()[-1] == relative.splitlines()[-1]
    own = "Find {expression}; boxes lie in {width} x {height}."
    assert question(build_messages("x", [0], own, (576, 576), SIDE)) == " \nFind x; boxes lie in 1000 x 1000."


def records(revos, coordinate_range):
    benchmark = open_training_split("revos", revos)
    tasks, _ = plan_tasks(benchmark, 0)
    return [build_record(task, "Step 1.", SIZE, coordinate_range=coordinate_range) for task in tasks]


def scores(example, texts):
    return [score.total for score in RewardScorer(find_rule("boxes_only"), None).score(example, texts)]


def test_records_prompt_and_reward_agree(revos):
    """The answer of a record gets the whole score under its own convention; the same numbers under the other do not."""
    for coordinate_range, other in ((None, SIDE), (SIDE, None)):
        path = revos / "cot.json"
        made = records(revos, coordinate_range)
        path.write_text(json.dumps(made))
        data = CoTData(revos, path, SIZE, coordinate_range=coordinate_range)
        assert ("0 to 1000" in question(data.messages_and_sizes(0, 0)[0])) == (coordinate_range is not None)
        assert ("0 to 1000" in json.loads(path.read_text())[0]["conversation"][0]["value"]) == (
            coordinate_range is not None
        )
        for index in range(len(data)):
            example = data.example(index, 0)
            assert example.ground_truth.masks.shape[1:] == (SIZE, SIZE)
            (score,) = scores(example, [example.response])
            assert score == pytest.approx(3.0, abs=0.06)  # records are rounded
            strange = SimpleNamespace(**{**example.__dict__, "coordinate_range": other})
            assert scores(strange, [example.response])[0] < 2.6
        old = [{"box_side" if key == "coordinate_range" else key: each[key] for key in each} for each in made]
        for content in (made, old):  # the old name of the field
            path.write_text(json.dumps(content))
            with pytest.raises(
                DataError, match=r"a/0: the record's boxes are .*resize is 64 and data.coordinate_range"
            ):
                CoTData(revos, path, SIZE, coordinate_range=other)


def test_relative_records_fit_frames_of_any_size_and_pixels_may_be_named(revos):
    path = revos / "cot.json"
    path.write_text(json.dumps(records(revos, SIDE)))
    answers = parse_answer(CoTData(revos, path, 2 * SIZE, coordinate_range=SIDE).example(0, 0).response).boxes
    assert answers and all(value == int(value) for box in answers for value in box)
    path.write_text(json.dumps(records(revos, None)))
    data = CoTData(revos, path, SIZE, coordinate_range=SIZE)  # a range that is the frame's
    assert data.example(0, 0).coordinate_range == SIZE


def test_training_data_takes_the_side_and_keeps_its_truth(revos):
    plain, relative = (
        build_training_data(train_files=revos, keyframe_resize=SIZE, coordinate_range=side).example(1, 3)
        for side in (None, SIDE)
    )
    assert (plain.coordinate_range, relative.coordinate_range) == (None, SIDE)
    assert plain.ground_truth.boxes == relative.ground_truth.boxes
    assert isinstance(build_training_data(train_files=revos), KeyframeTrainingData)


def test_inference_scales_to_the_video():
    frames = np.zeros((4, 56, 112, 3), np.uint8)
    policy = ScriptedPolicy(format_answer("", 1, [[500, 250, 1000, 1000]]))
    policy.model_info = ModelInfo("qwen3_vl", 32, SIDE)
    result = Segmenter(policy, BoxTracker(), size=SIZE).segment(frames, "it")
    assert result.prediction.boxes == ((56, 14, 112, 56),)
    assert "from 0 to 1000" in question(policy.questions[0].messages)


@pytest.mark.parametrize("coordinate_range", [None, SIDE])
def test_toy_answers_and_their_reasoning_are_in_the_same_range(coordinate_range):
    data = OnlineToyData("unused", keyframe_resize=112, coordinate_range=coordinate_range)
    for seed in range(8):
        example = data.example(0, seed)
        assert scores(example, [example.response])[0] > 2.8  # whole numbers of 112 pixels
        boxes = json.loads(re.search(r'"bbox_2d_list": (.*)}</answer>', example.response)[1])
        assert all(str(box) in example.response.partition("</think>")[0] for box in boxes)


def checkpoint(folder, **files):
    config = {"model_type": "qwen3_vl", "vision_config": {"patch_size": 16, "spatial_merge_size": 2}}
    for name, content in {"config.json": json.dumps(config), **files}.items():
        (folder / name).write_text(content)
    return folder


def test_what_a_training_has_fixed_comes_first(tmp_path):
    folder = checkpoint(tmp_path, **{"veason.json": '{"keyframe_resize": 448}'})
    assert read_model_info(folder) == ModelInfo("qwen3_vl", 32, SIDE)
    (folder / "veason.json").write_text('{"coordinate_range": null}')
    assert read_model_info(folder) == ModelInfo("qwen3_vl", 32, None, trained=True)
    (folder / "veason.json").write_text('{"box_side": 1000}')  # the key's old name
    assert read_model_info(folder) == ModelInfo("qwen3_vl", 32, SIDE, trained=True)
    (folder / "veason.json").write_text("[]")
    with pytest.raises(DataError, match=r"veason\.json holds no JSON object"):
        read_model_info(folder)


THINKING = "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}"


@pytest.mark.parametrize(
    "file",
    [
        {"chat_template.jinja": THINKING},
        {"chat_template.json": json.dumps({"chat_template": THINKING})},
        {"tokenizer_config.json": json.dumps({"chat_template": THINKING})},
    ],
    ids=lambda file: next(iter(file)),
)
def test_a_thinking_checkpoint_is_refused_with_the_reason(tmp_path, file):
    with pytest.raises(DataError, match=r"is a Thinking checkpoint: .* take the Instruct checkpoint"):
        read_model_info(checkpoint(tmp_path, **file))
    instruct = {name: text.replace("<think>", "").replace("\\n\\n", "\\n") for name, text in file.items()}
    assert read_model_info(checkpoint(tmp_path, **instruct)).coordinate_range == SIDE
