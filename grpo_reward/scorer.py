"""Scores the answers of one group together: the frames are encoded once and all boxes are tracked as one batch."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from grpo_reward.reward_score import DEFAULT_RULE, Breakdown, score_reading
from grpo_reward.rules import Rule, find_rule
from veason.examples import Example
from veason.tracker import Prompt, VideoTracker

log = logging.getLogger(__name__)

TRACKER_ERRORS = ("raise", "skip")


class TrackerFailed(RuntimeError):
    """SAM 2 failed twice on one sample; the message names it."""


class GroupScorer:
    """The engine's scorer.

    Args:
        rule: how answers are scored.
        tracker: needed by rules that compare masks.
        on_tracker_error: what a second failure of the tracker on the same sample does: `raise` ends the run with the sample's name;
            `skip` gives the whole group NaN, which leaves it out of the update, and counts it in `skipped`.
    """

    def __init__(self, rule: Rule, tracker: VideoTracker | None, on_tracker_error: str = "raise"):
        if on_tracker_error not in TRACKER_ERRORS:
            raise ValueError(f"worker.reward.on_tracker_error is {on_tracker_error!r}; choose {' or '.join(TRACKER_ERRORS)}")
        if rule.boxes is not None and tracker is None:
            raise ValueError("worker.reward.sam2_config: the rule compares tracked masks and needs a SAM 2 model")
        self.rule, self.tracker, self.on_tracker_error = rule, tracker, on_tracker_error
        self.skipped = 0

    def score(self, example: Example, responses: Sequence[str]) -> list[Breakdown]:
        """Score the responses to one prompt, in order."""
        truth = example.truth
        if truth is None:
            raise ValueError(f"{example.sample_id} has no truth to score against")
        readings = [self.rule.read(response) for response in responses]
        prompts = [self.rule.prompt(reading, truth) for reading in readings]
        try:
            height, width = truth.masks.shape[1:]
            masks = self._track(example, (height, width), prompts)
        except TrackerFailed as error:
            if self.on_tracker_error == "raise":
                raise
            self.skipped += 1
            log.warning("%s; its group is left out of the update (%d so far)", error, self.skipped)
            return [Breakdown(float("nan"), dict.fromkeys(self.rule.parts, float("nan")), reading.failure) for reading in readings]
        return [score_reading(self.rule, reading, truth, mask) for reading, mask in zip(readings, masks, strict=True)]

    def _track(self, example: Example, size: tuple[int, int], prompts: Sequence[Prompt | None]) -> list[torch.Tensor | None]:
        """Masks [T, H, W] per prompt on the tracker's device; a failure is tried once more, on a fresh state as every call is."""
        wanted = [prompt for prompt in prompts if prompt is not None]
        if not wanted or self.tracker is None:
            return [None] * len(prompts)
        frames = [np.asarray(image.convert("RGB")) for image in example.images]
        masks = None
        try:
            masks = self.tracker.track_group_on_device(frames, wanted, size)
        except Exception as error:
            log.warning("SAM 2 failed on %s, once more: %s", example.sample_id, repr(error))  # as text: a log record keeps what it is given
        if masks is None:
            # only here, outside the block above, are the error and with it the failed attempt's features and memories gone
            try:
                gc.collect()
                torch.cuda.empty_cache()  # nothing where CUDA is not in use
                masks = self.tracker.track_group_on_device(frames, wanted, size)
            except Exception as error:
                raise TrackerFailed(f"SAM 2 failed twice on {example.sample_id}: {error!r}") from error
        tracked = iter(masks)
        return [None if prompt is None else next(tracked) for prompt in prompts]


def build_scorer(
    compute_score: str = DEFAULT_RULE,
    on_tracker_error: str = "raise",
    sam2_config: str | None = None,
    sam2_checkpoint: str | None = None,
    device: str | torch.device = "cpu",
    options: dict[str, Any] | None = None,
    reward_type: str = "function",
) -> GroupScorer:
    """The scorer that `worker.reward` asks for, its tracker loaded on `device`.

    Args:
        compute_score: the rule, by name or by `package.module:name`.
        sam2_config: SAM 2 model file, or its name inside the sam2 package; only read where the rule tracks.
        sam2_checkpoint: its weights, which must be named; "random" is for a test without.
        options: what a rule of your own is made from.
        reward_type: "function" is what there is.
    """
    if reward_type != "function":
        raise ValueError(f"worker.reward.reward_type is {reward_type!r}; there is only 'function'")
    rule = find_rule(compute_score, **(options or {}))
    tracker = None
    if rule.boxes is not None:
        if sam2_config is None:
            raise ValueError(f"worker.reward.sam2_config is not set, and {compute_score} compares tracked masks")
        if sam2_checkpoint is None:  # random masks would be scored, and nothing would show it
            raise ValueError(f"worker.reward.sam2_checkpoint is not set, and {compute_score} compares tracked masks")
        tracker = VideoTracker.from_files(sam2_config, sam2_checkpoint, device)
    return GroupScorer(rule, tracker, on_tracker_error)
