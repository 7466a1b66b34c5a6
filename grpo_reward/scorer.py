"""Scores the answers of a group together, or of several: frames are encoded once and all boxes are tracked as one
batch.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from grpo_reward.reward_score import DEFAULT_RULE, Breakdown, score_reading
from grpo_reward.rules import Rule, find_rule
from veason.data.examples import Example, GroundTruth
from veason.tracking.sam2.tracker import Prompt, VideoTracker

log = logging.getLogger(__name__)

TRACKER_ERRORS = ("raise", "skip")
Masks = list[torch.Tensor | None]  # of a group: [T, H, W] per response, None where nothing was tracked


class TrackerFailed(RuntimeError):
    """SAM 2 failed twice on one sample; the message names it."""


class GroupScorer:
    """The engine's scorer.

    Args:
        rule: how answers are scored.
        tracker: needed by rules that compare masks.
        on_tracker_error: what a second failure of the tracker on the same sample does: `raise` ends the run with the
            sample's name; `skip` gives the whole group NaN, which leaves it out of the update, and counts it in
            `skipped`.
    """

    def __init__(self, rule: Rule, tracker: VideoTracker | None, on_tracker_error: str = "raise"):
        if on_tracker_error not in TRACKER_ERRORS:
            raise ValueError(
                f"worker.reward.on_tracker_error is {on_tracker_error!r}; choose {' or '.join(TRACKER_ERRORS)}"
            )
        if rule.boxes is not None and tracker is None:
            raise ValueError("worker.reward.sam2_config: the rule compares tracked masks and needs a SAM 2 model")
        self.rule, self.tracker, self.on_tracker_error = rule, tracker, on_tracker_error
        self.skipped = 0

    def score(self, example: Example, responses: Sequence[str]) -> list[Breakdown]:
        """Score the responses to one prompt, in order."""
        (scores,) = self.score_groups([(example, responses)])
        if isinstance(scores, TrackerFailed):
            raise scores
        return scores

    def score_groups(self, groups: Sequence[tuple[Example, Sequence[str]]]) -> list[list[Breakdown] | TrackerFailed]:
        """Score several prompts' responses, their clips tracked together; in a group's place the failure that would end
        the run.
        """
        asked = [_Asked.of(self.rule, example, responses) for example, responses in groups]
        tracked = self._track_together(asked)
        return [self._finish(group, masks) for group, masks in zip(asked, tracked, strict=True)]

    def _finish(self, group: _Asked, masks: Masks | TrackerFailed) -> list[Breakdown] | TrackerFailed:
        if not isinstance(masks, TrackerFailed):
            return [
                score_reading(self.rule, reading, group.truth, mask)
                for reading, mask in zip(group.readings, masks, strict=True)
            ]
        if self.on_tracker_error == "raise":
            return masks
        self.skipped += 1
        log.warning("%s; its group is left out of the update (%d so far)", masks, self.skipped)
        return [
            Breakdown(float("nan"), dict.fromkeys(self.rule.parts, float("nan")), reading.failure)
            for reading in group.readings
        ]

    def _track_together(self, asked: Sequence[_Asked]) -> list[Masks | TrackerFailed]:
        """Masks [T, H, W] per prompt on the tracker's device, groups of one size at once; what fails is tried once more
        by itself.
        """
        found: list[Masks | TrackerFailed] = [[None] * len(group.prompts) for group in asked]
        tracking = [number for number, group in enumerate(asked) if group.wanted and self.tracker is not None]
        for size in {asked[number].size for number in tracking}:
            members = [number for number in tracking if asked[number].size == size]
            masks: list[list[torch.Tensor]] | None = None
            try:
                masks = self._track([asked[number] for number in members], size)
            except Exception as error:
                names = ", ".join(asked[number].sample_id for number in members)
                log.warning(
                    "SAM 2 failed on %s, once more: %s", names, repr(error)
                )  # as text: a log record keeps what it is given
            for position, number in enumerate(members):
                own = self._once_more(asked[number]) if masks is None else masks[position]
                found[number] = own if isinstance(own, TrackerFailed) else asked[number].spread(own)
        return found

    def _once_more(self, group: _Asked) -> list[torch.Tensor] | TrackerFailed:
        """On a fresh state, as every call is: the caller has let go of the error, and with it of the failed attempt's
        features.
        """
        gc.collect()
        torch.cuda.empty_cache()  # nothing where CUDA is not in use
        try:
            return self._track([group], group.size)[0]
        except Exception as error:
            failed = TrackerFailed(f"SAM 2 failed twice on {group.sample_id}: {error!r}")
            failed.__cause__ = error
            return failed

    def _track(self, groups: Sequence[_Asked], size: tuple[int, int]) -> list[list[torch.Tensor]]:
        assert self.tracker is not None
        return self.tracker.track_groups_on_device([(group.frames(), group.wanted) for group in groups], size)


@dataclass(frozen=True)
class _Asked:
    """A group as the rule reads it: one reading, and one prompt or None, per response."""

    example: Example
    truth: GroundTruth
    readings: list[Any]
    prompts: list[Prompt | None]

    @classmethod
    def of(cls, rule: Rule, example: Example, responses: Sequence[str]) -> _Asked:
        if example.truth is None:
            raise ValueError(f"{example.sample_id} has no truth to score against")
        readings = [rule.read(response) for response in responses]
        return cls(example, example.truth, readings, [rule.prompt(reading, example.truth) for reading in readings])

    @property
    def sample_id(self) -> str:
        return self.example.sample_id

    @property
    def wanted(self) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt is not None]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the true masks, and so of the tracked ones."""
        height, width = self.truth.masks.shape[1:]
        return height, width

    def frames(self) -> list[np.ndarray]:
        return [np.asarray(image.convert("RGB")) for image in self.example.images]

    def spread(self, masks: Sequence[torch.Tensor]) -> Masks:
        """The masks of the prompts that there are, None for the others."""
        tracked = iter(masks)
        return [None if prompt is None else next(tracked) for prompt in self.prompts]


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
