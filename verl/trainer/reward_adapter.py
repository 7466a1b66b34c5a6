"""The task's functions, or stand-ins until grpo_reward.scorer and veason.model_info have them."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def check_reward(
    compute_score: str, tracker_options: dict[str, Any], options: dict[str, Any], **_: Any
) -> dict[str, str]:
    from grpo_reward.rules import find_rule

    try:
        rule = find_rule(compute_score, **options)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if rule.boxes is None:
        return {}
    need = f"worker.reward.compute_score={compute_score} tracks masks"
    for key in ("config", "checkpoint"):
        if not tracker_options.get(key):
            raise ValueError(f"worker.reward.sam2_{key} is not set, and {need}")
    path = tracker_options["checkpoint"]
    if path != "random" and not os.path.isfile(path):
        raise ValueError(f"no SAM 2 weights at worker.reward.sam2_checkpoint={path}, and {need}")
    return {"sam2": need}


def build_scorer(
    compute_score: str,
    on_tracker_error: str,
    tracker_options: dict[str, Any],
    device: str,
    options: dict[str, Any],
    reward_type: str,
    **_: Any,
) -> Any:
    from grpo_reward.scorer import build_scorer

    files = tracker_options.get("config"), tracker_options.get("checkpoint")
    return build_scorer(compute_score, on_tracker_error, *files, device, options, reward_type)


def read_model_info(path: str) -> Any:
    vision = json.loads(Path(path, "config.json").read_text())["vision_config"]
    return SimpleNamespace(pixel_multiple=vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2))


with contextlib.suppress(ImportError, AttributeError):
    _scorer = importlib.import_module("grpo_reward.scorer")
    check_reward, build_scorer = _scorer.check_reward, _scorer.build_scorer
    read_model_info = importlib.import_module("veason.model_info").read_model_info
