"""The rule `veason_points`: parts against numbers worked out by hand, groups, scaling, what a training writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grpo_reward.rules import RULES, find_rule
from grpo_reward.scorer import RewardScorer, check_reward
from tests.point_answer_text import format_point_answer
from tests.score_answer import score_answer
from veason.answers import ObjectKeyframe, format_answer
from veason.data.examples import GroundTruth, TrainingExample
from veason.errors import DataError
from veason.prompts import POINTS_TEMPLATE, load_template
from veason.tracking.tracker_prompts import MultiObjectPrompt
from verl.config import Config, ConfigError, load_config, override
from verl.trainer.build_task import checkpoint_settings, use_points_prompt_template

RULE = "veason_points"


def make_ground_truth():
    """Two objects of 10 x 10 on frame 4, one of them on frame 8, none on frame 0."""
    masks = np.zeros((3, 40, 40), np.uint8)
    masks[1, 0:10, 0:10] = masks[1, 20:30, 20:30] = masks[2, 0:10, 0:10] = 1
    absent, left, right = [0.0] * 4, [0.0, 0, 9, 9], [20.0, 20, 29, 29]
    return GroundTruth([0, 4, 8], [[absent, absent], [left, right], [left, absent]], masks)


def score(objects, ground_truth=None, thinking="."):
    return score_answer(
        format_point_answer(thinking, objects),
        ground_truth or make_ground_truth(),
        None,
        RULE,
        track_objects=lambda _: (ground_truth or make_ground_truth()).masks,
    )


LEFT, RIGHT = (0.0, 0.0, 9.0, 9.0), (20.0, 20.0, 29.0, 29.0)


@pytest.mark.parametrize(
    ("objects", "keyframe", "spatial"),
    [
        ([[ObjectKeyframe(4, LEFT)], [ObjectKeyframe(4, RIGHT)]], 1.0, 1.0),
        ([[ObjectKeyframe(4, RIGHT)], [ObjectKeyframe(4, LEFT)]], 1.0, 1.0),  # in any order
        ([[ObjectKeyframe(4, LEFT)]], 1.0, 0.5),  # one of two is missing
        (
            [[ObjectKeyframe(4, LEFT), ObjectKeyframe(8, LEFT)], [ObjectKeyframe(4, RIGHT)]],
            0.75,
            1.0,
        ),  # half the area on frame 8
        ([[ObjectKeyframe(4, LEFT)], [ObjectKeyframe(4, RIGHT)], [ObjectKeyframe(4, RIGHT)]], 1.0, 2 / 3),
        (
            [[ObjectKeyframe(4, LEFT)], [ObjectKeyframe(4, RIGHT)], [ObjectKeyframe(5, RIGHT)]],
            0.5,
            2 / 3,
        ),  # 5 was not shown
        ([[ObjectKeyframe(8, (0.0, 0.0, 9.0, 4.0))]], 0.5, 0.5),  # half of the box
        ([[ObjectKeyframe(8, None, ((3.5, 3.5), (30.0, 3.0)))]], 0.5, 0.5),  # one of two points is on the object
        (
            [[ObjectKeyframe(8, None, ((3.5, 3.5),), ((30.0, 3.0), (1.0, 1.0)))]],
            0.5,
            0.75,
        ),  # one negative point is, too
        ([[ObjectKeyframe(8, (0.0, 0.0, 9.0, 4.0), ((9.9, 9.9),), ((99.0, -3.0),))]], 0.5, (0.5 + 1 + 1) / 3),
        ([[ObjectKeyframe(4, None, ((25.0, 25.0),))], [ObjectKeyframe(4, None, ((5.0, 5.0),))]], 1.0, 1.0),
        ([[ObjectKeyframe(4, None, ((25.0, 25.0), (5.0, 5.0)))]], 1.0, 0.25),  # each object has half of the points
        ([[ObjectKeyframe(0, LEFT)]], 0.0, 0.0),  # the target is not there
    ],
)
def test_parts_by_hand(objects, keyframe, spatial):
    found = score(objects)
    expected = {"format": 2.0, "keyframe": keyframe, "spatial": spatial, "consistency": 1.0}
    assert found.parts == pytest.approx(expected)
    assert found.total == pytest.approx(3.0 + keyframe + spatial)


def test_entries_that_cannot_be_used_cost_format_and_spatial():
    good = {"id": 1, "keyframe_timestamp": 8, "bbox_2d": [0, 0, 9, 9]}
    text = f"<think>.</think><answer>{json.dumps({'objects': [good, {**good, 'bbox_2d': [1]}]})}</answer>"
    found = score_answer(text, make_ground_truth(), None, RULE, track_objects=lambda _: make_ground_truth().masks)
    assert (found.parts["format"], found.parts["spatial"], found.failure) == (1.5, 0.5, None)
    wrong = score_answer(format_answer("", 4, [LEFT]), make_ground_truth(), None, RULE)  # the published format
    assert (wrong.total, wrong.parts["format"], wrong.failure) == (1.0, 1.0, "bad_boxes")
    boxes = find_rule("veason_strict")
    assert (
        score_answer(format_point_answer("", [[ObjectKeyframe(4, LEFT)]]), make_ground_truth(), None, boxes).total
        == 1.0
    )
    assert RULES["video_match_keyframe_sft_sam_mod"].build_tracker_prompt is None  # the default stays


def test_refusing_is_rewarded_where_the_target_is_absent():
    ground_truth = replace(make_ground_truth(), masks=np.zeros((3, 40, 40), np.uint8), boxes=[[[0.0] * 4]] * 3)
    assert score([], ground_truth).total == 5.0
    assert score([[ObjectKeyframe(4, LEFT)]], ground_truth).total == 2.0
    assert score([]).parts == {"format": 2.0, "keyframe": 0.0, "spatial": 0.0, "consistency": 0.0}


class PointTracker:
    takes_points = True

    def __init__(self):
        self.given = []

    def track_groups_on_device(self, groups, size):
        self.given += [prompt for _, prompts in groups for prompt in prompts]
        return [[np.ones((len(frames), *size), bool) for _ in prompts] for frames, prompts in groups]

    def encode_frames(self, frames):
        return frames


def test_the_tracker_is_given_all_entries_on_frames_that_were_shown():
    """Positions among the sampled frames; positive points have label 1; coordinates are scaled to the masks once."""
    example = TrainingExample(
        "bear/7", [], [Image.new("RGB", (40, 40))] * 3, make_ground_truth(), coordinate_range=1000
    )
    entry = ObjectKeyframe(8, (0.0, 0.0, 225.0, 225.0), ((50.0, 100.0),), ((500.0, 25.0),))
    texts = [
        format_point_answer("", [[ObjectKeyframe(4, None, ((25.0, 25.0),)), entry], [ObjectKeyframe(5, LEFT)]]),
        "no",
    ]
    tracker = PointTracker()
    scores = RewardScorer(find_rule(RULE), tracker).score(example, texts)
    (prompt,) = tracker.given
    assert isinstance(prompt, MultiObjectPrompt) and len(prompt.objects) == 1
    first, second = prompt.objects[0]
    assert (first.frame, first.box, second.frame) == (1, None, 2)
    np.testing.assert_allclose(second.box, [0, 0, 9, 9])
    np.testing.assert_allclose(second.points, [[2, 4], [20, 1]])
    assert second.labels.tolist() == [1, 0] and first.points.tolist() == [[1, 1]]
    ground_truth = example.ground_truth.masks.astype(bool)
    # frame 4: both boxes hold no second point; frame 8: box, point and negative point are right; 5 counts as predicted
    assert scores[0].parts["spatial"] == pytest.approx((1 + 1) / (2 + 1 + 1)) and scores[1].total == 0.0
    assert scores[0].parts["consistency"] == pytest.approx(np.mean(ground_truth.mean((1, 2))))


def test_a_tracker_without_points_and_a_missing_tracker_are_refused():
    with pytest.raises(
        DataError, match=r"worker\.reward\.tracker: .*BoxTracker takes boxes .*veason_points reads points"
    ):
        check_reward(RULE, tracker="tests.veason.scripted_parts:BoxTracker")
    with pytest.raises(ValueError, match="needs a tracker"):
        RewardScorer(find_rule(RULE), None)
    with pytest.raises(ValueError, match="was given no tracker"):
        score_answer(format_point_answer("", [[ObjectKeyframe(4, LEFT)]]), make_ground_truth(), lambda *_: None, RULE)


@pytest.fixture
def config(tmp_path) -> Config:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    return load_config([f"worker.actor.model.model_path={tmp_path}", f"worker.reward.compute_score={RULE}"])


def test_a_training_asks_for_points_and_its_checkpoints_say_so(config):
    asked = use_points_prompt_template(config, fine_tuning=False)
    assert asked.data.prompt_template == POINTS_TEMPLATE
    written = checkpoint_settings(asked)
    assert (written["answer_parser"], written["prompt_template"]) == ("points", POINTS_TEMPLATE)
    own = override(config, {"data.prompt_template": "Point at {expression}."})
    assert use_points_prompt_template(own, False) is own
    usual = override(config, {"worker.reward.compute_score": "veason_strict"})
    assert use_points_prompt_template(usual, False) is usual and checkpoint_settings(usual)["answer_parser"] == "strict"
    assert load_template(None) != POINTS_TEMPLATE
    with pytest.raises(ConfigError, match=r"data\.reasoning=false: answers with points have reasoning"):
        use_points_prompt_template(override(config, {"data.reasoning": False}), False)


def test_formats_are_not_mixed(config):
    folder = Path(config.worker.actor.model.model_path or "")
    (folder / "veason.json").write_text(json.dumps({"answer_parser": "points", "prompt_template": POINTS_TEMPLATE}))
    assert use_points_prompt_template(config, False) is config  # its own wording is adopted later
    usual = override(config, {"worker.reward.compute_score": "veason_strict"})
    for given, fine_tuning, says in ((usual, False, "compute_score reads boxes"), (config, True, "targets give boxes")):
        with pytest.raises(ConfigError, match=f"the checkpoint answers with points; .*{says}"):
            use_points_prompt_template(given, fine_tuning)
    other = override(usual, {"data.prompt_template": "Box {expression}."})
    assert checkpoint_settings(use_points_prompt_template(other, True), True)["answer_parser"] == "strict"
