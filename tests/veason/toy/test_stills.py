"""Frames drawn while they are learned from: a function of the seed, with answers that are true of the picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from grpo_reward.reward_score import score_answer
from training_data_construction.seed_cot_generation import main as write_records
from training_data_construction.teacher_checks import check_answer
from veason.toy.stills import CoTWithStills, _draw


@pytest.fixture(scope="module")
def data(toy_root, tmp_path_factory):
    output = tmp_path_factory.mktemp("cot")
    words = (
        f"--teacher toy --data_root {toy_root / 'ReVOS'} --input_json meta_expressions_train_.json --output {output} --keyframe_resize 112"
    )
    assert write_records([*words.split(), "--no-llamafactory"]) == 0
    return CoTWithStills(
        toy_root / "ReVOS", output / "cot_train.json", keyframe_resize=112, prompt_template='Find "{expression}".', stills=50
    )


def test_records_come_first_then_the_stills(data):
    assert len(data) == len(data.samples) + 50
    assert data.response(0) == data.example(0, 1).response and data.response(len(data) - 1) is None
    assert data.sample_id(0) == data.samples[0].sample_id
    assert data.sample_id(len(data) - 1) == "still/49"


def test_a_still_is_a_function_of_its_seed(data):
    one, again, other = (data.example(len(data) - 1, seed) for seed in (5, 5, 6))
    assert one.response == again.response and np.array_equal(one.images[0], again.images[0])
    assert not np.array_equal(one.images[0], other.images[0])


def test_its_outline_is_no_shorter_than_any_still(data):
    messages, sizes = data.outline(len(data) - 1, 0)
    for seed in range(200):
        example = data.example(len(data) - 1, seed)
        assert sizes == [image.size for image in example.images] == [(112, 112)]
        words = [[len(part["text"].split()) for part in asked[1]["content"] if "text" in part] for asked in (messages, example.messages)]
        assert all(most >= own for most, own in zip(*words, strict=True))


def test_its_answer_is_true_of_the_picture(data):
    for seed in range(20):
        example, video = data.example(len(data) - 1, seed), _draw(seed)
        thinking = example.response.removeprefix("<think>").partition("</think>")[0]
        assert check_answer(thinking, 0, video.queries[0].text) is None
        boxes = json.loads(example.response.partition("<answer>")[2].removesuffix("</answer>"))["bbox_2d_list"]
        assert len(boxes) == len(video.queries[0].targets) > 0
        for box, target in zip(boxes, video.queries[0].targets):
            rows, columns = np.nonzero(video.visible[0, target])
            extremes = [columns.min() * 0.7, rows.min() * 112 / 120, columns.max() * 0.7, rows.max() * 112 / 120]
            assert box == [round(side + 0.5) for side in extremes]
            assert str(box) in thinking
        score = score_answer(example.response, example.truth, None, "no_sam2")
        assert score.spatial > 0.9 and score.keyframe == 1
