"""Scores the responses of whole groups: frames are encoded once, and all boxes are tracked as one batch."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from grpo_reward.coordinates import scale_boxes
from grpo_reward.parts import RewardInput
from grpo_reward.reward_score import DEFAULT_RULE, RewardScore, score_response
from grpo_reward.rules import RewardRule, find_rule
from veason.data.examples import TrainingExample
from veason.errors import DataError
from veason.registry import suggest
from veason.tracking import DEFAULT, PACKAGES, build_tracker, check_takes_boxes, check_takes_points, check_tracker
from veason.tracking.base import BaseTracker, Tracker
from veason.tracking.tracker_prompts import BoxPrompt, MultiObjectPrompt

log = logging.getLogger(__name__)

TRACKER_ERRORS = ("raise", "skip")


class TrackerError(RuntimeError):
    """The tracker failed twice on one sample; the message names it."""


class RewardScorer:
    """Scores groups by one rule; a scorer of `verl.protocol`.

    Args:
        rule: how responses are scored.
        tracker: needed by rules that compare masks.
        on_tracker_error: what a second failure of the tracker on the same sample does: `raise` ends the run with the
            sample's name; `skip` gives the whole group NaN, which leaves it out of the update, and counts it in
            `skipped`.
    """

    def __init__(self, rule: RewardRule, tracker: Tracker | None, on_tracker_error: str = "raise"):
        check_on_tracker_error(on_tracker_error)
        if rule.needs_tracker and tracker is None:
            raise ValueError("worker.reward.tracker: the rule compares tracked masks and needs a tracker")
        self.rule, self.tracker, self.on_tracker_error = rule, tracker, on_tracker_error
        self.skipped = 0

    def prepare(self, example: TrainingExample) -> PreparedExample:
        """The example with what the tracker computes of its frames alone; `score` takes it in the example's place."""
        frames: Sequence[np.ndarray] = rgb_frames(example)
        if self.tracker is not None and self.rule.needs_tracker:
            try:
                frames = self.tracker.encode_frames(frames)
            except Exception as error:  # tracking itself is tried twice, from the frames
                log.warning("the tracker failed on the frames of %s, retried: %s", example.sample_id, repr(error))
        return PreparedExample(example, frames)

    def score(self, example: TrainingExample | PreparedExample, responses: Sequence[str]) -> list[RewardScore]:
        """Score the responses to one prompt, in order."""
        (scores,) = self.score_groups([(example, responses)])
        if isinstance(scores, TrackerError):
            raise scores
        return scores

    def score_groups(
        self, groups: Sequence[tuple[TrainingExample | PreparedExample, Sequence[str]]]
    ) -> list[list[RewardScore] | TrackerError]:
        """Score several prompts' responses, their clips tracked together.

        Returns:
            Per group its scores, or the failure that should end the run.
        """
        parsed = [ParsedGroup.parse(self.rule, example, responses) for example, responses in groups]
        tracked = self._track_groups(parsed)
        return [self._score_group(group, masks) for group, masks in zip(parsed, tracked, strict=True)]

    def track_responses(self, example: TrainingExample, responses: Sequence[str]) -> list[RewardInput]:
        """The responses with their tracked masks, as the parts see them, for pictures.

        Raises:
            TrackerError: the tracker failed twice, with on_tracker_error=raise.
        """
        group = ParsedGroup.parse(self.rule, example, responses)
        (masks,) = self._track_groups([group])
        if isinstance(masks, TrackerError):
            if self.on_tracker_error == "raise":
                raise masks
            return group.reward_inputs
        return group.with_masks(masks)

    def _score_group(
        self, group: ParsedGroup, masks: list[torch.Tensor] | TrackerError
    ) -> list[RewardScore] | TrackerError:
        if not isinstance(masks, TrackerError):
            return [score_response(self.rule, reward_input) for reward_input in group.with_masks(masks)]
        if self.on_tracker_error == "raise":
            return masks
        self.skipped += 1
        log.warning("%s; its group is left out of the update (%d so far)", masks, self.skipped)
        nan = float("nan")
        parts = dict.fromkeys(self.rule.parts, nan)
        return [RewardScore(nan, parts, reward_input.parsed.failure) for reward_input in group.reward_inputs]

    def _track_groups(self, groups: Sequence[ParsedGroup]) -> list[list[torch.Tensor] | TrackerError]:
        """Per group the masks of its prompts, groups of one mask size at once; a failure is retried group by group."""
        found: list[list[torch.Tensor] | TrackerError] = [[] for _ in groups]
        has_tracker = self.tracker is not None
        tracking = [number for number, group in enumerate(groups) if group.nonempty_prompts and has_tracker]
        for size in {groups[number].size for number in tracking}:
            members = [number for number in tracking if groups[number].size == size]
            masks: list[list[torch.Tensor]] | None = None
            try:
                masks = self._track([groups[number] for number in members], size)
            except Exception as error:
                names = ", ".join(groups[number].sample_id for number in members)
                log.warning("the tracker failed on %s, retried: %s", names, repr(error))  # as text: logs keep arguments
            for position, number in enumerate(members):
                found[number] = self._retry(groups[number]) if masks is None else masks[position]
        return found

    def _retry(self, group: ParsedGroup) -> list[torch.Tensor] | TrackerError:
        """Track one group alone; the first error, and the features that it held, are gone by now."""
        gc.collect()
        torch.cuda.empty_cache()  # nothing where CUDA is not in use
        try:
            return self._track([replace(group, frames=rgb_frames(group.example))], group.size)[0]
        except Exception as error:
            failed = TrackerError(f"the tracker failed twice on {group.sample_id}: {error!r}")
            failed.__cause__ = error
            return failed

    def _track(self, groups: Sequence[ParsedGroup], size: tuple[int, int]) -> list[list[torch.Tensor]]:
        assert self.tracker is not None
        return self.tracker.track_groups_on_device([(group.frames, group.nonempty_prompts) for group in groups], size)


@dataclass(frozen=True)
class PreparedExample:
    """An example, and its frames as the tracker takes them (`Tracker.encode_frames`)."""

    example: TrainingExample
    frames: Sequence[np.ndarray]

    @property
    def sample_id(self) -> str:
        return self.example.sample_id


@dataclass(frozen=True)
class ParsedGroup:
    """The responses to one prompt as the rule parses them, each with what the tracker is asked for, boxes or points."""

    example: TrainingExample
    frames: Sequence[np.ndarray]
    reward_inputs: list[RewardInput]
    tracker_prompts: list[BoxPrompt | MultiObjectPrompt | None]

    @classmethod
    def parse(
        cls, rule: RewardRule, example: TrainingExample | PreparedExample, responses: Sequence[str]
    ) -> ParsedGroup:
        """Raises ValueError when the example has no ground truth."""
        prepared = example if isinstance(example, PreparedExample) else PreparedExample(example, rgb_frames(example))
        example, frames = prepared.example, prepared.frames
        ground_truth = example.ground_truth
        if ground_truth is None:
            raise ValueError(f"{example.sample_id} has no ground truth to score against")
        coordinate_range = getattr(example, "coordinate_range", None)  # data of one's own may give examples of its own
        parsed = [scale_boxes(rule.parse(response), coordinate_range, ground_truth) for response in responses]
        reward_inputs = [
            RewardInput(response, each, ground_truth, None, example.sample_id, example.expression)
            for response, each in zip(responses, parsed)
        ]
        return cls(
            example, frames, reward_inputs, [rule.tracker_prompt(reward_input) for reward_input in reward_inputs]
        )

    @property
    def sample_id(self) -> str:
        return self.example.sample_id

    @property
    def nonempty_prompts(self) -> list[BoxPrompt | MultiObjectPrompt]:
        """The tracker's prompts, of the responses that have one."""
        return [prompt for prompt in self.tracker_prompts if prompt is not None]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the ground-truth masks, and so of the tracked ones."""
        assert self.example.ground_truth is not None
        height, width = self.example.ground_truth.masks.shape[1:]
        return height, width

    def with_masks(self, masks: Sequence[torch.Tensor]) -> list[RewardInput]:
        """The inputs with the masks of `nonempty_prompts`; None for a response without one."""
        if not masks:
            return self.reward_inputs
        tracked = iter(masks)
        return [
            reward_input if prompt is None else replace(reward_input, masks=next(tracked))
            for reward_input, prompt in zip(self.reward_inputs, self.tracker_prompts, strict=True)
        ]


def rgb_frames(example: TrainingExample) -> list[np.ndarray]:
    """The images that the policy saw, uint8 [H, W, 3] RGB."""
    return [np.asarray(image.convert("RGB")) for image in example.images]


def check_on_tracker_error(value: str) -> None:
    if value not in TRACKER_ERRORS:
        raise DataError(f"worker.reward.on_tracker_error is {value!r}{suggest(value, TRACKER_ERRORS)}")


def check_reward(
    compute_score: str = DEFAULT_RULE,
    weights: Mapping[str, float] | None = None,
    on_tracker_error: str = "raise",
    tracker: str = DEFAULT,
    tracker_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    reward_type: str = "function",
) -> dict[str, str]:
    """Check `worker.reward` before anything is loaded.

    Args:
        compute_score: the rule, by name or by `package.module:name`.
        weights: part -> its factor in the sum.
        on_tracker_error: see `RewardScorer`.
        tracker, tracker_options: see `veason.tracking`; read only where the rule tracks.
        options: what a rule of your own is made from.
        reward_type: "function" is what there is.

    Returns:
        Import name of a package that is needed -> what needs it.

    Raises:
        DataError: in one line that names the key.
    """
    rule = _find_rule(compute_score, weights, options, reward_type)
    check_on_tracker_error(on_tracker_error)
    if not rule.needs_tracker:
        return {}
    need = f"worker.reward.compute_score={compute_score} tracks masks"
    try:
        check_takes_boxes(tracker, "a reward scores the boxes of a policy")
        if rule.build_tracker_prompt is not None:
            check_takes_points(tracker, f"worker.reward.compute_score={compute_score} reads points")
        check_tracker(tracker, tracker_options or {})
    except DataError as error:
        raise _with_key(error, need) from error
    return dict.fromkeys(PACKAGES.get(tracker, ()), need)


def build_scorer(
    compute_score: str = DEFAULT_RULE,
    weights: Mapping[str, float] | None = None,
    on_tracker_error: str = "raise",
    tracker: str = DEFAULT,
    tracker_options: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
    reward_type: str = "function",
) -> RewardScorer:
    """The scorer that `worker.reward` asks for, its tracker loaded on `device` and compiled; arguments as in
    `check_reward`.
    """
    rule = _find_rule(compute_score, weights, options, reward_type)
    check_on_tracker_error(on_tracker_error)
    if not rule.needs_tracker:
        return RewardScorer(rule, None, on_tracker_error)
    try:
        check_takes_boxes(tracker, "a reward scores the boxes of a policy")
        built = build_tracker(tracker, device, **(tracker_options or {}))
    except DataError as error:
        raise _with_key(error, f"worker.reward.compute_score={compute_score} tracks masks") from error
    if isinstance(built, BaseTracker):
        built.warm_up()
    return RewardScorer(rule, built, on_tracker_error)


def _with_key(error: DataError, need: str) -> DataError:
    """A tracker's error with its key in the configuration; those about SAM 2's files begin with the option."""
    section = "worker.reward.tracker_options" if str(error).startswith("sam2_") else "worker.reward"
    return type(error)(f"{section}.{error}; {need}")


def _find_rule(
    name: str, weights: Mapping[str, float] | None, options: Mapping[str, Any] | None, reward_type: str
) -> RewardRule:
    if reward_type != "function":
        raise DataError(f"worker.reward.reward_type is {reward_type!r}; there is only 'function'")
    return find_rule(name, **(options or {})).with_weights(weights or {})
