"""Online toy data: examples are a function of the seed, and their answers are consistent with the frames."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.score_answer import score_answer
from training_data_construction.teacher_checks import check_answer
from veason.answers import parse_json_answer
from veason.toy.online_data import OnlineToyData, sample_video
from veason.toy.render import draw_frames, draw_masks, object_crops, scene_tensors
from veason.toy.scene import SHAPES, random_scene
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from verl.workers.prompt_builder import PromptBuilder


def toy_data(still_ratio):
    return OnlineToyData(
        "unused", keyframe_resize=112, prompt_template='Find "{expression}".', examples=50, still_ratio=still_ratio
    )


def test_an_example_is_a_function_of_its_seed():
    data = toy_data(0.5)
    one, again, other = (data.example(7, seed) for seed in (5, 5, 6))
    assert one.response == again.response and all(
        np.array_equal(a, b) for a, b in zip(one.images, again.images, strict=True)
    )
    assert one.response != other.response
    assert len(data) == 50 and data.sample_id(7) == one.sample_id == "online/7"


@pytest.mark.parametrize("still_ratio", [0.0, 1.0])
def test_the_answer_is_consistent_with_the_frames(still_ratio):
    data = toy_data(still_ratio)
    frames = set()
    for seed in range(12):
        example, video = data.example(0, seed), sample_video(seed, still_ratio, 20, 6)
        thinking = example.response.removeprefix("<think>").partition("</think>")[0]
        assert check_answer(thinking, video.keyframe, video.query.text) is None
        assert (
            len(example.images) == len(video.indices) == len(example.ground_truth.timestamps)
            and video.keyframe in video.indices
        )
        frames.add(len(video.indices))
        fields, failure = parse_json_answer(example.response)
        assert failure is None and fields["keyframe_timestamp"] == video.keyframe
        assert all(str(box) in thinking for box in fields["bbox_2d_list"]) and fields["bbox_2d_list"]
        score = score_answer(example.response, example.ground_truth, None, "no_sam2")
        assert score.parts["spatial"] > 0.9 and score.parts["keyframe"] > 0.5
    assert frames == {1} if still_ratio else max(frames) == 5


def test_the_outline_bounds_every_prompt(tmp_path):
    write_policy(tmp_path, PolicySize(), seed=0)
    builder, data = PromptBuilder(str(tmp_path)), toy_data(0.3)
    bound = builder.length(*data.messages_and_sizes(0, 0))
    for seed in range(40):
        example = data.example(0, seed)
        assert builder.length(example.messages, [image.size for image in example.images]) <= bound


def test_frames_rendered_alone_equal_those_of_the_video():
    tensors = replace(scene_tensors(random_scene(random.Random(3), frames=6)), noise_std=torch.zeros(1))
    crops = object_crops(tensors)
    assert (draw_frames(tensors, [crop.at([1, 4]) for crop in crops]) == draw_frames(tensors, crops)[[1, 4]]).all()


def test_no_object_is_cut_off_by_its_crop(monkeypatch):
    def render(scene):
        tensors = scene_tensors(scene)
        crops = object_crops(tensors)
        return draw_frames(tensors, crops, torch.Generator().manual_seed(0)).numpy(), *draw_masks(tensors, crops)

    scenes = [random_scene(random.Random(seed), frames=6) for seed in range(12)]
    tight = list(map(render, scenes))
    monkeypatch.setattr("veason.toy.render.MAX_EXTENT", 3.0)
    wide = list(map(render, scenes))
    for ours, theirs in zip(tight, wide, strict=True):
        assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
    assert {shape.shape for scene in scenes for shape in scene.shapes} == set(SHAPES)
