"""A group is scored as its answers would be one by one, and a tracker that fails is not the policy's fault."""

import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from grpo_reward.rules import find_rule
from grpo_reward.scorer import RewardScorer, TrackerError, build_scorer, check_reward
from tests.score_answer import score_answer
from veason.answers import format_answer
from veason.data.examples import GroundTruth, TrainingExample
from veason.tracking.base import BaseTracker


class BoxTracker:
    """Fills the boxes on every frame, and fails as often as it is told to."""

    def __init__(self, failures=0):
        self.failures, self.calls = failures, 0

    def track_groups_on_device(self, groups, size):
        self.calls += 1
        if self.calls <= self.failures:
            raise RuntimeError("CUDA error: out of luck")
        assert all(frame.shape == (20, 30, 3) and frame.dtype == np.uint8 for frames, _ in groups for frame in frames)
        return [[self.fill(prompt.boxes, len(frames), size) for prompt in prompts] for frames, prompts in groups]

    @staticmethod
    def fill(boxes, total, size):
        masks = np.zeros((total, *size), dtype=bool)
        for x1, y1, x2, y2 in boxes.astype(int):
            masks[:, y1 : y2 + 1, x1 : x2 + 1] = True
        return masks


def make_example():
    masks = np.zeros((2, 10, 10), dtype=np.uint8)
    masks[:, 2:6, 2:6] = 1
    ground_truth = GroundTruth([3, 9], [[[2, 2, 5, 5]], [[2, 2, 5, 5]]], masks)
    return TrainingExample("bear/7", [], [Image.new("RGB", (30, 20))] * 2, ground_truth)


TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"
RESPONSES = [
    format_answer("", 3, [[2, 2, 5, 5]]),
    "nothing",
    format_answer("", 9, [[2, 2, 5, 9], [0, 0, 1, 1]]),
    format_answer("", 4, [[1, 1, 2, 2]]),
]


@pytest.mark.parametrize("rule", ["video_match_keyframe_sft_sam_mod", "veason_strict", "no_sam2"])
def test_a_group_is_its_answers(rule):
    example = make_example()
    scores = RewardScorer(find_rule(rule), BoxTracker()).score(example, RESPONSES)
    alone = [
        score_answer(text, example.ground_truth, lambda boxes, _: BoxTracker.fill(boxes, 2, (10, 10)), rule)
        for text in RESPONSES
    ]
    assert scores == alone
    assert [score.failure for score in scores] == [None, "no_answer", None, None]


@pytest.mark.parametrize("rule", ["video_match_keyframe_sft_sam_mod", "veason_strict", "no_sam2"])
def test_boxes_relative_to_a_square_are_scaled_to_the_masks_once(rule):
    """Parts and tracker see pixels of the masks, here 10 x 10; without boxes nothing changes."""
    relative = [
        format_answer("", 3, [[200, 200, 500, 500]]),
        "nothing",
        format_answer("", 9, [[200, 200, 500, 900], [0, 0, 100, 100]]),
        format_answer("", 4, [[100, 100, 200, 200]]),
    ]
    scorer = RewardScorer(find_rule(rule), BoxTracker())
    assert scorer.score(replace(make_example(), coordinate_range=1000), relative) == scorer.score(
        make_example(), RESPONSES
    )


def test_an_enormous_relative_box_stays_a_number():
    example = replace(make_example(), coordinate_range=1)
    (score,) = RewardScorer(find_rule("no_sam2"), None).score(example, [format_answer("", 3, [[0, 0, 1e308, 1e308]])])
    assert math.isfinite(score.total)


class PreparingTracker(BoxTracker):
    """Tracks only frames that it has prepared, unless it could not prepare them."""

    def encode_frames(self, frames):
        if self.failures:
            self.failures -= 1
            raise RuntimeError("CUDA error: out of luck")
        return tuple(frames)

    def track_groups_on_device(self, groups, size):
        self.kinds = [type(frames) for frames, _ in groups]
        return super().track_groups_on_device(groups, size)


def test_frames_that_were_prepared_score_the_same(caplog):
    example, rule = make_example(), find_rule("veason_strict")
    expected = RewardScorer(rule, BoxTracker()).score(example, RESPONSES)
    scorer = RewardScorer(rule, PreparingTracker())
    assert scorer.score(scorer.prepare(example), RESPONSES) == expected and scorer.tracker.kinds == [tuple]
    scorer = RewardScorer(rule, PreparingTracker(failures=1))  # then the frames themselves are tracked
    assert scorer.score(scorer.prepare(example), RESPONSES) == expected and scorer.tracker.kinds == [list]
    assert "the tracker failed on the frames of bear/7" in caplog.text


def test_one_failure_is_tried_again():
    tracker = BoxTracker(failures=1)
    scores = RewardScorer(find_rule("video_match_keyframe_sft_sam_mod"), tracker).score(make_example(), RESPONSES)
    assert tracker.calls == 2 and scores[0].total == 5.0


def test_the_second_attempt_finds_the_memory_of_the_first_free(caplog):
    class Features:
        pass

    class HoldingTracker(BoxTracker):
        held = None

        def track_groups_on_device(self, groups, size):
            assert self.held is None or self.held() is None
            features = Features()
            self.held = weakref.ref(features)
            return super().track_groups_on_device(groups, size)

    scores = RewardScorer(find_rule("veason_strict"), HoldingTracker(failures=1)).score(make_example(), RESPONSES)
    assert scores[0].total == 5.0 and "bear/7" in caplog.text and "out of luck" in caplog.text


def test_two_failures_stop_the_run_and_name_the_sample():
    with pytest.raises(TrackerError, match=r"bear/7.*out of luck"):
        RewardScorer(find_rule("veason_strict"), BoxTracker(failures=2)).score(make_example(), RESPONSES)


def test_two_failures_leave_the_group_out_where_that_was_asked_for():
    scorer = RewardScorer(find_rule("veason_strict"), BoxTracker(failures=2), on_tracker_error="skip")
    scores = scorer.score(make_example(), RESPONSES)
    assert all(math.isnan(score.total) and all(map(math.isnan, score.parts.values())) for score in scores)
    assert [score.failure for score in scores] == [None, "no_answer", None, None] and scorer.skipped == 1
    assert scorer.score(make_example(), RESPONSES)[0].total == 5.0


def test_several_groups_are_scored_as_each_alone():
    """Of two sizes of masks, one without an answer to track; and when all together fail, each by itself."""
    example = make_example()
    large = replace(
        example,
        ground_truth=replace(example.ground_truth, masks=np.repeat(np.repeat(example.ground_truth.masks, 2, 1), 2, 2)),
    )
    groups = [
        (make_example(), RESPONSES),
        (large, RESPONSES[:3]),
        (make_example(), ["nothing"]),
        (make_example(), RESPONSES[2:]),
    ]
    rule = find_rule("video_match_keyframe_sft_sam_mod")
    alone = [RewardScorer(rule, BoxTracker()).score(*group) for group in groups]
    together, failing = BoxTracker(), BoxTracker(failures=1)
    assert RewardScorer(rule, together).score_groups(groups) == alone and together.calls == 2
    assert RewardScorer(rule, failing).score_groups(groups) == alone and failing.calls >= 3


def test_a_group_that_cannot_be_tracked_costs_the_others_nothing():
    class Picky(BoxTracker):
        def track_groups_on_device(self, groups, size):
            if any(len(prompts) == 1 for _, prompts in groups):
                raise RuntimeError("not this one")
            return super().track_groups_on_device(groups, size)

    groups = [(make_example(), RESPONSES), (make_example(), RESPONSES[:2])]
    first, second = RewardScorer(find_rule("veason_strict"), Picky()).score_groups(groups)
    assert first == RewardScorer(find_rule("veason_strict"), BoxTracker()).score(*groups[0])
    assert isinstance(second, TrackerError) and "not this one" in str(second)


def test_nothing_to_track_calls_no_tracker():
    tracker = BoxTracker(failures=9)
    scores = RewardScorer(find_rule("veason_strict"), tracker).score(make_example(), ["nothing"] * 3)
    assert tracker.calls == 0 and all(score.total == 0 for score in scores)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"compute_score": "no_sam2", "on_tracker_error": "ignore"}, "worker.reward.on_tracker_error is 'ignore'"),
        (
            {},
            "worker.reward.tracker_options.sam2_checkpoint is not set: download weights for sam2_config=configs/",
        ),
        ({"tracker_options": {"sam2_config": TINY}}, "worker.reward.tracker_options.sam2_checkpoint is not set"),
        (
            {"tracker_options": {"config": TINY, "checkpoint": "/no"}},
            "sam2_checkpoint=/no is no file",
        ),
        ({"tracker": "samm2"}, "worker.reward.tracker: 'samm2' is unknown; did you mean sam2?"),
        (
            {"tracker": f"{__name__}:OwnTracker", "tracker_options": {"a": 1}},
            "worker.reward.tracker_options.a is unknown",
        ),
        ({"compute_score": "no_sam2", "reward_type": "model"}, "worker.reward.reward_type is 'model'"),
        ({"compute_score": "no_sam2", "weights": {"form": 1}}, "no part is named 'form'; did you mean format?"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(options, says):
    for call in (check_reward, build_scorer):
        with pytest.raises(ValueError) as error:
            call(**options)
        assert says in str(error.value) and "\n" not in str(error.value)


def test_what_is_needed_is_told_before_anything_is_loaded():
    sam2 = {"sam2_config": TINY, "sam2_checkpoint": "random"}
    assert check_reward("no_sam2") == {}
    (need,) = check_reward(tracker_options=sam2).values()
    assert need == "worker.reward.compute_score=video_match_keyframe_sft_sam_mod tracks masks"
    assert list(check_reward(tracker_options={"config": TINY, "checkpoint": "random"})) == ["sam2"]
    assert check_reward(tracker=f"{__name__}:OwnTracker", tracker_options=sam2) == {}  # of the published YAML
    assert build_scorer("no_sam2").tracker is None


def test_a_tracker_of_ones_own_scores_as_it_tracks():
    scorer = build_scorer(tracker=f"{__name__}:OwnTracker", weights={"consistency": 3})
    assert scorer.tracker.warm  # compiled before there is another thread
    scores = scorer.score(make_example(), RESPONSES)
    alone = RewardScorer(find_rule("video_match_keyframe_sft_sam_mod"), BoxTracker()).score(make_example(), RESPONSES)
    assert [score.parts for score in scores] == [score.parts for score in alone]
    assert scores[0].total == alone[0].total + 2 * alone[0].parts["consistency"]


def test_an_example_without_truth_is_named():
    with pytest.raises(ValueError, match="bear/7"):
        RewardScorer(find_rule("no_sam2"), None).score(TrainingExample("bear/7", [], [], None), [""])


class OwnTracker(BaseTracker):
    """Fills its boxes, corners inclusive, in the frames' pixels (three times the masks' grid)."""

    warm = False

    def warm_up(self):
        self.warm = True

    def track(self, read_frame, total, keyframe, boxes):
        assert read_frame(keyframe).shape == (20, 30, 3)
        mask = np.zeros((20, 30), dtype=bool)
        for x1, y1, x2, y2 in boxes.round().astype(int):
            mask[y1 : y2 + 2, x1 : x2 + 3] = True
        return ((frame, mask) for frame in range(total))
