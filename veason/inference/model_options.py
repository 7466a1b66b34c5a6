"""Which policy and tracker are loaded and how they are used, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veason.answer_parsers import POINTS
from veason.checkpoints import USABLE_CHECKPOINTS, check_complete, resolve_model
from veason.errors import DataError
from veason.frames import check_pixel_multiple
from veason.inference.vllm_policy import SamplingOptions, VLLMPolicy
from veason.inference_settings import complete_settings
from veason.model_info import read_model_info
from veason.toy_assets import TOY_MAX_TOKENS, TOY_POLICY, TOY_SENTENCE, TOY_TRACKER, check_shipped, toy_tracker_options
from veason.tracking import DEFAULT, build_tracker, check_takes_points, check_tracker, takes_text
from veason.tracking.base import Tracker

USABLE_WEIGHTS = "fit is sam2.1_hiera_large.pt, from facebook/sam2.1-hiera-large on the hub"
MAX_TOKENS = 1024  # of an answer
MAX_FRAMES = 64  # of a video that the tracker encodes once for all expressions; a longer one is streamed for each
DEFAULT_PROMPT_TOKENS = 7100  # tokens; the published limit, as in training and evaluation
TEXT_TOKENS, TOKENS_AROUND_FRAME = 1024, 12  # room for the question; for a frame's timestamp and marks
MAX_SAMPLED_FRAMES = 256  # frames that a policy can be shown


@dataclass
class ModelOptions:
    """A policy, a tracker and how they are used. `check` completes what is None from the checkpoint's settings.

    Attributes:
        model: the policy's checkpoint, a folder or a name on the hub; None: the toy models of the repository, or no
            policy where the tracker takes text.
        tracker: a name of `veason.tracking`, or `package.module:name`.
        tracker_options: the tracker's own; for sam2 `checkpoint`, and `config` where it cannot be told from it.
        size: side in pixels of the frames that the policy sees.
        sampled_frames: how many of them, evenly spaced.
        prompt_template: the question with {expression}, as text or as a path to a text file.
        temperature: of sampling; 0 is greedy.
        max_tokens: of an answer.
        device: of the tracker; a GPU where there is one, when None.
        timestamp_mode, answer_parser, repetition_penalty: see `veason.inference_settings.InferenceSettings`.
        settings: a veason.json in place of the checkpoint's.
        warnings: after `check`, one line for each value that is not the one that the checkpoint was made for.
    """

    model: str | Path | None = None
    tracker: str = DEFAULT
    tracker_options: dict[str, Any] = field(default_factory=dict)
    size: int = None  # type: ignore[assignment]  # set by `check`
    sampled_frames: int = None  # type: ignore[assignment]
    prompt_template: str | None = None
    temperature: float = 0.0
    max_tokens: int = None  # type: ignore[assignment]
    device: str | None = None
    timestamp_mode: str = None  # type: ignore[assignment]
    answer_parser: str = None  # type: ignore[assignment]
    repetition_penalty: float = None  # type: ignore[assignment]
    settings: str | Path | None = None
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.max_tokens is None:
            self.max_tokens = TOY_MAX_TOKENS if self.is_toy else MAX_TOKENS
        if self.model is None and self.tracker == DEFAULT and not self.tracker_options.get("checkpoint"):
            self.tracker_options = {**self.tracker_options, **toy_tracker_options()}

    @property
    def is_toy(self) -> bool:
        """Whether the policy is the repository's toy."""
        return self.needs_policy and (self.model is None or Path(self.model).resolve() == TOY_POLICY)

    @property
    def needs_policy(self) -> bool:
        """Whether there is a policy: a tracker that takes text finds the objects by itself. Raises DataError."""
        return self.tracker == DEFAULT or not takes_text(self.tracker)

    @property
    def policy_path(self) -> Path:
        return TOY_POLICY if self.model is None else Path(self.model).expanduser()

    @property
    def segmenter_options(self) -> dict[str, Any]:
        """The arguments of `veason.inference.segmenter.Segmenter` besides policy and tracker."""
        names = ("sampled_frames", "size", "prompt_template", "answer_parser", "timestamp_mode")
        options = {name: getattr(self, name) for name in names} if self.needs_policy else {}
        return {**options, "notice": TOY_SENTENCE if self.is_toy else ""}

    def check(self, needs_tracker: bool = True) -> None:
        """Refuse in one line what would fail once models are loaded. Raises DataError, which names the option."""
        if not self.needs_policy:
            names = (
                "model",
                "settings",
                "size",
                "sampled_frames",
                "prompt_template",
                "timestamp_mode",
                "answer_parser",
            )
            given = [name for name in (*names, "repetition_penalty") if getattr(self, name) is not None]
            self.warnings = [f"{', '.join(given)}: no effect, {self.tracker} is used without a policy"] if given else []
            check_tracker(self.tracker, self.tracker_options)
            return
        if self.model is None:
            check_shipped(TOY_POLICY, *([TOY_TRACKER] if needs_tracker and self.tracker == DEFAULT else []))
        elif not str(self.model).strip():
            raise DataError(f"model is empty: {USABLE_CHECKPOINTS}")
        else:
            self.model = resolve_model(self.policy_path)
        check_complete(self.policy_path)
        info = read_model_info(self.policy_path)
        self._fill_in()
        self._check_numbers()
        check_pixel_multiple(self.size, info.pixel_multiple)
        if needs_tracker and self.answer_parser == POINTS:
            check_takes_points(self.tracker, f"answer_parser={POINTS}")
        if needs_tracker:
            self._check_tracker()

    def _fill_in(self) -> None:
        """Take what is not given from the checkpoint's settings, and note what is given otherwise."""
        names = ("sampled_frames", "prompt_template", "timestamp_mode", "answer_parser", "repetition_penalty")
        given = {"keyframe_resize": self.size} | {name: getattr(self, name) for name in names}
        used, self.warnings = complete_settings(given, self.settings or self.policy_path)
        self.size = used.keyframe_resize
        for name in names:
            setattr(self, name, getattr(used, name))

    def _check_tracker(self) -> None:
        """Check the tracker's options; the SAM 2 model file that is not given is the one that the weights belong to."""
        options = self.tracker_options
        if self.tracker == DEFAULT:
            checkpoint = options.get("checkpoint")
            if not checkpoint:
                raise DataError(f"sam2 is not given: {USABLE_WEIGHTS}")
            if not options.get("config") and Path(checkpoint).is_file():
                from veason.tracking.sam2.config_matching import infer_config

                options["config"] = infer_config(checkpoint)
        check_tracker(self.tracker, options)

    def _check_numbers(self) -> None:
        for name, value, least, most in (
            ("size", self.size, 1, 4096),
            ("sampled_frames", self.sampled_frames, 1, MAX_SAMPLED_FRAMES),
            ("max_tokens", self.max_tokens, 1, 32768),
            ("temperature", self.temperature, 0, 10),
            ("repetition_penalty", self.repetition_penalty, 0.1, 10),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise DataError(f"{name}={value} is no number")
            if not least <= value <= most:
                raise DataError(f"{name}={value} is outside {least} to {most}")
            if name not in ("temperature", "repetition_penalty") and not isinstance(value, int):
                raise DataError(f"{name}={value} is no whole number")

    def load_policy(self) -> VLLMPolicy | None:
        """The policy, in an engine of its own; None where none is asked."""
        if not self.needs_policy:
            return None
        penalty = self.repetition_penalty
        sampling = SamplingOptions(self.temperature, repetition_penalty=penalty, max_tokens=self.max_tokens)
        per_frame = (self.size // read_model_info(self.policy_path).pixel_multiple) ** 2
        longest = max(DEFAULT_PROMPT_TOKENS, TEXT_TOKENS + self.sampled_frames * (per_frame + TOKENS_AROUND_FRAME))
        return VLLMPolicy(self.policy_path, sampling, max_prompt_tokens=longest, max_images=self.sampled_frames)

    def load_tracker(self) -> Tracker:
        """The tracker, on its device."""
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return build_tracker(self.tracker, device, MAX_FRAMES, **self.tracker_options)
