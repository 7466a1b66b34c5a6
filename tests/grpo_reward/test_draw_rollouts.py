"""Pictures of rollouts show what the reward sees, whatever the policy wrote."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from grpo_reward.draw_rollouts import draw_rollouts
from grpo_reward.rules import find_rule
from grpo_reward.scorer import RewardScorer, TrackerError
from tests.veason.scripted_parts import BoxTracker
from veason.answers import format_answer
from veason.data.examples import GroundTruth, TrainingExample
from veason.visualization.drawing import PREDICTED_COLOUR, TRUE_COLOUR

SIDE, TIMESTAMPS = 64, [0, 4, 8]


def example(size: int = SIDE) -> TrainingExample:
    masks = np.zeros((3, SIDE, SIDE), np.uint8)
    masks[:, 40:60, 40:60] = 1
    ground_truth = GroundTruth(TIMESTAMPS, [[[40.0, 40.0, 59.0, 59.0]]] * 3, masks)
    return TrainingExample(
        "video/0", [], [Image.new("RGB", (size, size), (90, 90, 90))] * 3, ground_truth, expression="it"
    )


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Which pixels below the title have about this colour."""
    return (np.abs(picture[30:].astype(int) - colour).max(axis=-1) < 40).any()


@pytest.mark.parametrize("size", [SIDE, 2 * SIDE])
def test_boxes_and_masks_are_drawn(size: int) -> None:
    scorer = RewardScorer(find_rule("ablation_keyframe_sft_only_external"), BoxTracker())
    answer = format_answer("there", 4, [[2, 2, 30, 30]])
    odd = format_answer("there", 4, [[2, 2, 30, 30], [float("1e300"), 0, 1e301, 9]])
    texts = [answer, "no answer", format_answer("absent", 0, []), format_answer("then", 99, [[0, 0, 9, 9]]), odd]
    drawn = draw_rollouts(scorer, example(size), texts)
    assert [sorted(pictures) for pictures in drawn] == [
        ["keyframe", "masks"],
        ["masks"],
        ["keyframe", "masks"],
        ["masks"],
        ["keyframe", "masks"],
    ]
    for pictures in drawn:
        for picture in pictures.values():
            assert picture.dtype == np.uint8 and picture.ndim == 3 and near(picture, TRUE_COLOUR)
    assert near(drawn[0]["keyframe"], PREDICTED_COLOUR) and near(drawn[0]["masks"], PREDICTED_COLOUR)
    assert not near(drawn[1]["masks"], PREDICTED_COLOUR) and not near(drawn[2]["keyframe"], PREDICTED_COLOUR)


def test_a_rule_without_a_tracker_draws_boxes_alone() -> None:
    scorer = RewardScorer(find_rule("no_sam2"), None)
    (drawn,) = draw_rollouts(scorer, example(), [format_answer("there", 4, [[2, 2, 30, 30]])])
    assert near(drawn["keyframe"], PREDICTED_COLOUR) and not near(drawn["masks"], PREDICTED_COLOUR)


def test_a_tracker_that_fails_ends_the_run_or_leaves_the_masks_out() -> None:
    class Broken(BoxTracker):
        def track_groups_on_device(self, groups, size):
            raise RuntimeError("out of memory")

    rule, answer = find_rule("ablation_keyframe_sft_only_external"), format_answer("there", 4, [[2, 2, 30, 30]])
    with pytest.raises(TrackerError, match="failed twice on video/0"):
        draw_rollouts(RewardScorer(rule, Broken()), example(), [answer])
    (drawn,) = draw_rollouts(RewardScorer(rule, Broken(), "skip"), example(), [answer])
    assert near(drawn["keyframe"], PREDICTED_COLOUR) and not near(drawn["masks"], PREDICTED_COLOUR)
