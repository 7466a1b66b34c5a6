"""The scores that can be asked for, by name: which reading, which parts, and which boxes SAM 2 is given.

A rule of your own is one more entry, or a `Rule` (or a function that makes one from `worker.reward.options`) anywhere
that `worker.reward.compute_score=package.module:name` points to.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from grpo_reward.parts import (
    Masks,
    consistency_part,
    format_part,
    keyframe_part,
    keyframe_position,
    match_boxes,
    spatial_part,
)
from grpo_reward.reading import Reading, read_as_published, read_strictly
from grpo_reward.strict import strict_boxes, strict_consistency_part, strict_keyframe_part, strict_spatial_part
from veason.data.examples import GroundTruth
from veason.tracking.sam2.tracker import Prompt

Part = Callable[[Reading, GroundTruth, Masks | None], float]


@dataclass(frozen=True)
class Rule:
    """A score as the sum of its parts.

    Attributes:
        read: text -> Reading; never raises.
        parts: name -> part; each is logged under its name.
        boxes: which of the read boxes prompt the tracker on the chosen frame, float64 [K, 4]; None for a rule without
            SAM 2.
    """

    read: Callable[[str], Reading]
    parts: Mapping[str, Part]
    boxes: Callable[[Reading, GroundTruth], np.ndarray | None] | None = None

    def prompt(self, reading: Reading, truth: GroundTruth) -> Prompt | None:
        """What the tracker is asked for, or None where nothing is to be tracked."""
        position = keyframe_position(reading, truth)
        if self.boxes is None or position is None:
            return None
        boxes = self.boxes(reading, truth)
        return None if boxes is None or not len(boxes) else Prompt(position, boxes)


def matched_boxes(reading: Reading, truth: GroundTruth) -> np.ndarray | None:
    """The predicted boxes that the matching pairs with a true one, in the order they were predicted."""
    matched = match_boxes(reading, truth)
    return None if matched is None or reading.boxes is None else reading.boxes[matched[0]]


def all_boxes(reading: Reading, _truth: GroundTruth) -> np.ndarray | None:
    """Every predicted box, as at inference."""
    return reading.boxes


PARTS: dict[str, Part] = {
    "format": format_part,
    "keyframe": keyframe_part,
    "spatial": spatial_part,
    "consistency": consistency_part,
}
STRICT: dict[str, Part] = {
    "format": format_part,
    "keyframe": strict_keyframe_part,
    "spatial": strict_spatial_part,
    "consistency": strict_consistency_part,
}


def published(*names: str, boxes: Callable[[Reading, GroundTruth], np.ndarray | None] | None = None) -> Rule:
    """The published parts of these names."""
    return Rule(read_as_published, {name: PARTS[name] for name in names}, boxes)


RULES: dict[str, Rule] = {
    # the published recipe, and its ablations under the names of its configs
    "video_match_keyframe_sft_sam_mod": published("format", "keyframe", "spatial", "consistency", boxes=matched_boxes),
    "ablation_no_keyframe_reward": published("format", "spatial", "consistency", boxes=matched_boxes),
    "ablation_keyframe_sft_sam_mod_compute_score": published("format", "keyframe", "spatial"),
    "ablation_keyframe_sft_only_sam": published("format", "keyframe", "consistency", boxes=matched_boxes),
    "ablation_keyframe_sft_only_external": published("format", "keyframe", "consistency", boxes=all_boxes),
    "boxes_only": published("format", "spatial"),
    # all predicted boxes are propagated, absent objects are absent, refusing is rewarded, boxes are finite and ordered
    "veason_strict": Rule(read_strictly, STRICT, strict_boxes),
}
RULES["no_keyframe"] = RULES["ablation_no_keyframe_reward"]
RULES["no_sam2"] = RULES["ablation_keyframe_sft_sam_mod_compute_score"]


def find_rule(name: str, **options: Any) -> Rule:
    """A rule by its name in `RULES`, or by `package.module:name`; a function found there is called with `options`.

    Raises:
        ValueError: there is no such rule; the message lists those there are.
        TypeError: the path leads to something else, or there are options where none are taken.
    """
    if ":" not in name:
        if name not in RULES:
            raise ValueError(
                f"worker.reward.compute_score: no rule is named {name!r}; choose {', '.join(RULES)} or "
                "package.module:name"
            )
        if options:
            raise TypeError(f"worker.reward.options: {name} takes none, got {', '.join(options)}")
        return RULES[name]
    module, attribute = name.split(":", 1)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"worker.reward.compute_score: {name!r} cannot be imported: {error}") from error
    if not isinstance(found, Rule) and callable(found):
        found = found(**options)
    if not isinstance(found, Rule):
        raise TypeError(
            f"worker.reward.compute_score: {name!r} is a {type(found).__name__}, not a grpo_reward.rules.Rule"
        )
    return found
