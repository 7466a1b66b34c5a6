"""Pictures of the responses to one prompt, as the reward sees them: the boxes on the keyframe, the tracked masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from grpo_reward.parts import RewardInput, keyframe_position
from grpo_reward.scorer import RewardScorer
from veason.data.examples import TrainingExample
from veason.visualization.comparison import keyframe_picture, mask_picture

MAX_DRAWN = 1e4  # pixels; a box that reaches farther is drawn up to there


def draw_rollouts(
    scorer: RewardScorer, example: TrainingExample, responses: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """Per response `keyframe` (where it names a timestamp that was shown) and `masks`, uint8 [H, W, 3] RGB.

    The clip is tracked anew, all responses together: the masks of the score are not kept.

    Args:
        scorer: the reward's, with its tracker.

    Raises:
        TrackerError: as in scoring, with on_tracker_error=raise; with skip the masks are left out.
    """
    assert example.ground_truth is not None  # else nothing could be scored
    height, width = example.ground_truth.masks.shape[1:]  # boxes and masks are in this grid
    frames = [np.asarray(image.convert("RGB").resize((width, height))) for image in example.images]
    return [_draw(frames, reward_input) for reward_input in scorer.track_responses(example, responses)]


def _draw(frames: list[np.ndarray], reward_input: RewardInput) -> dict[str, np.ndarray]:
    position, ground_truth = keyframe_position(reward_input), reward_input.ground_truth
    predicted = reward_input.masks.cpu().numpy() if isinstance(reward_input.masks, torch.Tensor) else reward_input.masks
    timestamp = None if position is None else ground_truth.timestamps[position]
    pictures = {"masks": mask_picture(frames, ground_truth.timestamps, predicted, ground_truth.masks, timestamp)}
    if position is None or timestamp is None:
        return pictures
    boxes = np.zeros((0, 4)) if reward_input.parsed.boxes is None else reward_input.parsed.boxes
    finite = boxes[np.isfinite(boxes).all(axis=1)].clip(-MAX_DRAWN, MAX_DRAWN)
    return {"keyframe": keyframe_picture(frames[position], timestamp, finite, ground_truth.boxes[position]), **pictures}
