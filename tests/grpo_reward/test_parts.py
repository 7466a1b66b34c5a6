"""Each part against numbers worked out by hand, and the corrections of the strict rule."""

import numpy as np
import pytest
import torch

from grpo_reward.parts import box_ious, frame_ious
from grpo_reward.rules import RULES, RewardRule, find_rule
from tests.score_answer import score_answer
from veason.answers import format_answer
from veason.data.examples import GroundTruth

STRICT, FAITHFUL = "veason_strict", "video_match_keyframe_sft_sam_mod"


def make_ground_truth():
    masks = np.zeros((3, 10, 10), dtype=np.uint8)
    masks[0, :2, :5] = 1  # 10 pixels
    masks[1, :4, :5] = 1  # 20 pixels
    return GroundTruth([0, 7, 14], [[[0, 0, 4, 1]], [[0, 0, 4, 3], [0, 0, 0, 0]], [[0, 0, 0, 0]]], masks)


def absent_ground_truth():
    return GroundTruth([0, 7], [[[0, 0, 0, 0]], [[0, 0, 0, 0]]], np.zeros((2, 10, 10), dtype=np.uint8))


def never(*_):
    raise AssertionError("the tracker was called")


def tracked(masks):
    return lambda *_: masks


def test_boxes_count_their_corner_pixels():
    ious = box_ious(np.array([[0.0, 0, 3, 3], [2, 2, 5, 5]]), np.array([[2.0, 2, 5, 5]]))
    np.testing.assert_allclose(ious, [[4 / 28], [1.0]])


def test_frames_empty_in_both_agree():
    masks = np.zeros((3, 4, 4), dtype=bool)
    ground_truth = np.zeros((3, 4, 4), dtype=np.uint8)
    masks[1, :2], ground_truth[1, :1], ground_truth[2, 0, 0] = True, 1, 1
    for given in (masks, torch.from_numpy(masks), masks[::-1][::-1]):
        assert frame_ious(given, ground_truth).tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        frame_ious(masks[:2], ground_truth)


def test_parts_of_a_good_answer():
    masks = make_ground_truth().masks.copy()
    masks[1, :, :] = 0
    score = score_answer(format_answer("why", 0, [[0, 0, 4, 1]]), make_ground_truth(), tracked(masks))
    assert score.parts == {"format": 2.0, "keyframe": 0.5, "spatial": 1.0, "consistency": pytest.approx(2 / 3)}
    assert score.total == pytest.approx(2 + 0.5 + 1 + 2 / 3) and score.failure is None


def test_an_unreadable_answer_scores_nothing_and_says_why():
    score = score_answer("I do not know.", make_ground_truth(), never)
    assert score.total == 0 and score.failure == "no_answer"


def test_a_time_that_was_not_shown():
    score = score_answer(format_answer("", 3, [[0, 0, 4, 1]]), make_ground_truth(), never)
    assert score.parts == {"format": 2.0, "keyframe": 0.0, "spatial": 0.0, "consistency": 0.0}


def test_ablations_leave_parts_out():
    text = format_answer("", 7, [[0, 0, 4, 3]])
    masks = make_ground_truth().masks
    names = {name: set(score_answer(text, make_ground_truth(), tracked(masks), name).parts) for name in RULES}
    everything = {"format", "keyframe", "spatial", "consistency"}
    assert names["ablation_no_keyframe_reward"] == names["no_keyframe"] == everything - {"keyframe"}
    assert names["ablation_keyframe_sft_sam_mod_compute_score"] == names["no_sam2"] == everything - {"consistency"}
    assert names["ablation_keyframe_sft_only_sam"] == everything - {"spatial"}
    assert names["boxes_only"] == {"format", "spatial"}
    assert names[FAITHFUL] == names[STRICT] == everything
    assert score_answer(text, make_ground_truth(), never, "no_sam2").total == pytest.approx(3.5)  # no SAM 2 is asked


def test_published_matches_absent_objects_and_strict_does_not():
    text = format_answer("", 7, [[0, 0, 4, 3]])
    assert (
        score_answer(text, make_ground_truth(), tracked(make_ground_truth().masks)).parts["spatial"] == 0.5
    )  # the zero box counts as a missed object
    assert score_answer(text, make_ground_truth(), tracked(make_ground_truth().masks), STRICT).parts["spatial"] == 1.0
    zero = format_answer("", 14, [[0, 0, 0, 0]])
    assert score_answer(zero, make_ground_truth(), tracked(make_ground_truth().masks)).parts["spatial"] == 1.0
    assert score_answer(zero, make_ground_truth(), never, STRICT).parts["spatial"] == 0.0


def test_strict_tracks_every_box_as_inference_does():
    text = format_answer("", 0, [[0, 0, 4, 1], [5, 5, 9, 9]])
    given = {}
    for rule in (FAITHFUL, STRICT):
        score_answer(text, make_ground_truth(), lambda boxes, _, rule=rule: given.update({rule: len(boxes)}), rule)
    assert given == {FAITHFUL: 1, STRICT: 2}


def test_refusing_is_right_when_nothing_is_there():
    refusal, guess = format_answer("", 7, []), format_answer("", 7, [[0, 0, 4, 3]])
    assert score_answer(refusal, absent_ground_truth(), never, STRICT).total == 5.0
    assert (
        score_answer(format_answer("", 7, [[0, 0, 0, 0]]), absent_ground_truth(), never, STRICT).total == 5.0
    )  # the data's way to say so
    assert score_answer(guess, absent_ground_truth(), never, STRICT).total == 2.0  # no part has a use for masks
    assert score_answer(refusal, make_ground_truth(), never, STRICT).parts == {
        "format": 2.0,
        "keyframe": 1.0,
        "spatial": 0.0,
        "consistency": 0.0,
    }
    assert score_answer("", absent_ground_truth(), never, STRICT).total == 0.0  # silence is no refusal


def test_strict_boxes_are_finite_and_ordered():
    boxes = "[[0, 0, 4, 3], [4, 3, 0, 0], [0, 0, 1e999, 3]]"
    text = f'<think></think><answer>{{"keyframe_timestamp": 7, "bbox_2d_list": {boxes}}}</answer>'
    score = score_answer(text, make_ground_truth(), tracked(make_ground_truth().masks), STRICT)
    assert score.parts["format"] == pytest.approx(1 + 1 / 3) and score.parts["spatial"] == pytest.approx(
        1 / 3
    )  # what is no box was still predicted
    assert score_answer(text.replace("7,", "true,"), make_ground_truth(), never, STRICT).failure == "bad_keyframe"


def test_scores_stay_in_range_where_the_arithmetic_does_not():
    """Boxes turned inside out by exactly one pixel, or beyond 64 bits, make IoU infinite, negative or above 1."""
    for box in ([5, 0, 4, 3], [9, 9, -9, -9], [0, 0, 2**70, 2**70], [-(2**80), 0, 2**80, 1]):
        score = score_answer(format_answer("", 7, [box]), make_ground_truth(), tracked(make_ground_truth().masks))
        assert 0.0 <= score.parts["spatial"] <= 1.0 and 0.0 <= score.total <= 5.0


def test_a_part_sees_the_response_the_expression_and_the_sample():
    seen = []

    def brevity(context):
        seen.append(context)
        return 0.25

    rule = RewardRule(RULES[FAITHFUL].parse, {"brevity": brevity, **RULES["no_sam2"].parts})
    text, ground_truth = format_answer("", 7, [[0, 0, 4, 3]]), make_ground_truth()
    score = score_answer(text, ground_truth, None, rule, sample_id="bear/7", expression="the bear")
    assert score.parts["brevity"] == 0.25 and score.total == pytest.approx(3.75)
    (context,) = seen
    assert (context.response, context.sample_id, context.expression) == (text, "bear/7", "the bear")
    assert context.ground_truth is ground_truth and context.parsed.keyframe_timestamp == 7 and context.masks is None


def test_weights_scale_the_sum_and_not_the_parts():
    text = format_answer("", 7, [[0, 0, 4, 3]])
    plain = score_answer(text, make_ground_truth(), None, RULES["no_sam2"])
    weighted = RULES["no_sam2"].with_weights({"spatial": 2, "format": 0.5})
    score = score_answer(text, make_ground_truth(), None, weighted)
    assert score.parts == plain.parts == {"format": 2.0, "keyframe": 1.0, "spatial": 0.5}
    assert plain.total == 3.5 and score.total == 0.5 * 2 + 1 + 2 * 0.5
    assert RULES["no_sam2"].weights == {} and RULES["no_sam2"].with_weights({}) is RULES["no_sam2"]
    with pytest.raises(ValueError, match=r"worker\.reward\.weights: no part is named 'spacial'; did you mean spatial?"):
        RULES["no_sam2"].with_weights({"spacial": 2})
    for wrong in (float("nan"), "two", True):
        with pytest.raises(ValueError, match=r"worker\.reward\.weights\.spatial is .*; a weight is a finite number"):
            RULES["no_sam2"].with_weights({"spatial": wrong})


def test_rules_are_found_by_name_and_by_path():
    assert find_rule(STRICT) is RULES[STRICT]
    assert find_rule(f"{__name__}:RULE_OF_THE_TESTS").parts == {}
    assert find_rule(f"{__name__}:make_rule", names=["format"]).parts.keys() == {"format"}


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("no_such_rule", {}, "worker.reward.compute_score: 'no_such_rule' is unknown; choose video_match_keyframe"),
        ("veason_strikt", {}, "did you mean veason_strict?"),
        ("no_sam2", {"names": 1}, "worker.reward.options: no_sam2 takes none, got names"),
        ("grpo_reward.rules:nothing", {}, "cannot be imported"),
        ("grpo_reward.rules:PARTS", {}, "is a dict, not a grpo_reward.rules.RewardRule"),
        (
            f"{__name__}:make_rule",
            {},
            "makes a RewardRule from worker.reward.options, and worker.reward.options.names is not set",
        ),
        (
            f"{__name__}:make_rule",
            {"names": [], "name": 1},
            "worker.reward.options.name is unknown; did you mean names?",
        ),
        (
            f"{__name__}:compute_score",
            {},
            "(predict_str, ground_truth) makes a RewardRule from worker.reward.options, and worker.reward.op",
        ),
        (f"{__name__}:never", {}, "gave a NoneType, not a grpo_reward.rules.RewardRule"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(name, options, says, monkeypatch):
    monkeypatch.setattr(f"{__name__}.never", lambda: None)
    with pytest.raises(ValueError) as error:
        find_rule(name, **options)
    assert says in str(error.value) and "\n" not in str(error.value)


def compute_score(predict_str, ground_truth):
    """A reward function as other trainers take it."""
    return float(predict_str == ground_truth)


RULE_OF_THE_TESTS = RewardRule(RULES[FAITHFUL].parse, {})


def make_rule(names):
    return RewardRule(RULES[FAITHFUL].parse, {name: RULES[FAITHFUL].parts[name] for name in names})
