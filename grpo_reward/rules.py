"""Rules by name: how a response is parsed, which parts are summed with which weights, what is tracked.

A rule of your own is one file: parts, and a `RewardRule` (or a function that makes one from `worker.reward.options`),
chosen by `worker.reward.compute_score=package.module:name`:

    def brevity(reward_input: RewardInput) -> float:
        return 1.0 if len(reward_input.response) < 400 else 0.0

    RULE = RewardRule(parse_published, {**PARTS, "brevity": brevity}, matched_boxes)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from grpo_reward.parsing import ParsedResponse, parse_published, parse_strict, parse_without_reasoning
from grpo_reward.parts import (
    RewardInput,
    consistency_part,
    format_part,
    keyframe_part,
    keyframe_position,
    match_boxes,
    spatial_part,
)
from grpo_reward.point_parts import parse_points, points_keyframe_part, points_spatial_part, points_tracker_prompt
from grpo_reward.strict_parts import strict_boxes, strict_consistency_part, strict_keyframe_part, strict_spatial_part
from veason.answer_parsers import POINTS, STRICT
from veason.errors import DataError
from veason.registry import check_arguments, load_by_name, suggest
from veason.tracking.tracker_prompts import BoxPrompt, MultiObjectPrompt

RewardPart = Callable[[RewardInput], float]
SelectBoxes = Callable[[RewardInput], np.ndarray | None]
BuildTrackerPrompt = Callable[[RewardInput], MultiObjectPrompt | None]


@dataclass(frozen=True)
class RewardRule:
    """A score as the weighted sum of its parts.

    Attributes:
        parse: response -> ParsedResponse; never raises.
        parts: name -> part; each is logged under its name, unweighted.
        select_boxes: which of the parsed boxes the tracker is given on the chosen frame, float64 [K, 4]; None for a
            rule that tracks nothing.
        weights: part -> its factor in the sum; 1 for a part that is not named.
        build_tracker_prompt: in the place of `select_boxes`, builds a prompt with points and on several frames, which
            are positions among the sampled ones.
        answer_parser: inference's, a name of `veason.answer_parsers.ANSWER_PARSERS`; with "points" the default
            prompt asks for them.
    """

    parse: Callable[[str], ParsedResponse]
    parts: Mapping[str, RewardPart]
    select_boxes: SelectBoxes | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    build_tracker_prompt: BuildTrackerPrompt | None = None
    answer_parser: str = STRICT

    @property
    def needs_tracker(self) -> bool:
        """Whether it compares masks, and needs a tracker."""
        return self.select_boxes is not None or self.build_tracker_prompt is not None

    def tracker_prompt(self, reward_input: RewardInput) -> BoxPrompt | MultiObjectPrompt | None:
        """What the tracker is asked for, or None where nothing is to be tracked."""
        if self.build_tracker_prompt is not None:
            return self.build_tracker_prompt(reward_input)
        position = keyframe_position(reward_input)
        if self.select_boxes is None or position is None:
            return None
        boxes = self.select_boxes(reward_input)
        return None if boxes is None or not len(boxes) else BoxPrompt(position, boxes)

    def with_weights(self, weights: Mapping[str, float]) -> RewardRule:
        """The rule with other factors for some of its parts.

        Raises:
            DataError: a weight for a part that the rule does not have, or one that is not a finite number.
        """
        for name, weight in weights.items():
            if name not in self.parts:
                raise DataError(f"worker.reward.weights: no part is named {name!r}{suggest(name, self.parts)}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise DataError(f"worker.reward.weights.{name} is {weight!r}; a weight is a finite number")
        return replace(self, weights={**self.weights, **weights}) if weights else self


def matched_boxes(reward_input: RewardInput) -> np.ndarray | None:
    """The predicted boxes that the matching pairs with a ground-truth one, in the order they were predicted."""
    matched, boxes = match_boxes(reward_input), reward_input.parsed.boxes
    return None if matched is None or boxes is None else boxes[matched[0]]


def all_boxes(reward_input: RewardInput) -> np.ndarray | None:
    """Every predicted box, as at inference."""
    return reward_input.parsed.boxes


PARTS: dict[str, RewardPart] = {
    "format": format_part,
    "keyframe": keyframe_part,
    "spatial": spatial_part,
    "consistency": consistency_part,
}
STRICT_PARTS: dict[str, RewardPart] = {
    "format": format_part,
    "keyframe": strict_keyframe_part,
    "spatial": strict_spatial_part,
    "consistency": strict_consistency_part,
}
POINTS_PARTS: dict[str, RewardPart] = {
    "format": format_part,
    "keyframe": points_keyframe_part,
    "spatial": points_spatial_part,
    "consistency": strict_consistency_part,
}


def published_rule(*names: str, boxes: SelectBoxes | None = None) -> RewardRule:
    """The published parts of these names."""
    return RewardRule(parse_published, {name: PARTS[name] for name in names}, boxes)


RULES: dict[str, RewardRule] = {
    # the published recipe, and its ablations under the names of its configs
    "video_match_keyframe_sft_sam_mod": published_rule(
        "format", "keyframe", "spatial", "consistency", boxes=matched_boxes
    ),
    "ablation_no_keyframe_reward": published_rule("format", "spatial", "consistency", boxes=matched_boxes),
    "ablation_keyframe_sft_sam_mod_compute_score": published_rule("format", "keyframe", "spatial"),
    "ablation_keyframe_sft_only_sam": published_rule("format", "keyframe", "consistency", boxes=matched_boxes),
    "ablation_keyframe_sft_only_external": published_rule("format", "keyframe", "consistency", boxes=all_boxes),
    "boxes_only": published_rule("format", "spatial"),
    "no_reasoning": RewardRule(parse_without_reasoning, PARTS, matched_boxes),  # with data.reasoning: false
    # all predicted boxes are tracked, absent objects are absent, refusing is rewarded, boxes are finite and ordered
    "veason_strict": RewardRule(parse_strict, STRICT_PARTS, strict_boxes),
    # answers with points, and several keyframes of an object: a format of its own
    "veason_points": RewardRule(
        parse_points, POINTS_PARTS, build_tracker_prompt=points_tracker_prompt, answer_parser=POINTS
    ),
}
RULES["no_keyframe"] = RULES["ablation_no_keyframe_reward"]
RULES["no_sam2"] = RULES["ablation_keyframe_sft_sam_mod_compute_score"]

RULE_KEY = "worker.reward.compute_score"


def find_rule(name: str, /, **options: Any) -> RewardRule:
    """A rule by its name in `RULES`, or by `package.module:name`; a function found there is called with `options`.

    Raises:
        DataError: there is no such rule, the path leads to something else, or an option is not taken.
    """
    found = load_by_name(name, RULES, RULE_KEY)
    if isinstance(found, RewardRule):
        if options:
            raise DataError(f"worker.reward.options: {name} takes none, got {', '.join(options)}")
        return found
    if not callable(found):
        raise DataError(f"{RULE_KEY}: {name} is a {type(found).__name__}, not a grpo_reward.rules.RewardRule")
    try:
        check_arguments(found, options, "worker.reward.options")
    except DataError as error:
        raise DataError(
            f"{RULE_KEY}: {name}{inspect.signature(found)} makes a RewardRule from worker.reward.options, and {error}. "
            'A scoring function becomes a part: RULE = RewardRule(parse_published, {"name": part}), see '
            "grpo_reward/rules.py"
        ) from error
    rule = found(**options)
    if not isinstance(rule, RewardRule):
        raise DataError(f"{RULE_KEY}: {name} gave a {type(rule).__name__}, not a grpo_reward.rules.RewardRule")
    return rule
