"""What the task needs to know of a policy's checkpoint, read from its config.json; imports no torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veason.errors import DataError

SETTINGS_FILE = "veason.json"  # beside config.json: what a training has fixed
# earlier names in veason.json and in the headers of evaluations
RENAMED_KEYS: dict[str, str] = {"box_side": "coordinate_range", "frame_index": "timestamp_mode"}
# model_type -> the model writes coordinates from 0 to this; None: pixels of the frame as it is shown.
# A `coordinate_range` in veason.json, or else in config.json, takes precedence. Sources: the Qwen2.5-VL report
# (absolute coordinates), the Qwen3-VL cookbooks (relative, 0 to 1000).
COORDINATE_RANGES: dict[str, int | None] = {"qwen2_5_vl": None, "qwen3_vl": 1000}

# in Jinja, or in Jinja inside JSON, where a line's end is written with one backslash more
_OPENS_THINKING = re.compile(r"add_generation_prompt.{0,80}?<\|im_start\|>assistant\\+n<think>", re.DOTALL)


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a checkpoint."""

    model_type: str  # as in config.json
    pixel_multiple: int  # the sides of a frame have to be multiples of it, in pixels: patch size times merge size
    coordinate_range: int | None  # answers' coordinates are from 0 to this; None: pixels of the frame shown
    trained: bool = False  # whether a training has fixed `coordinate_range`: veason.json names it


def read_model_info(path: str | Path) -> ModelInfo:
    """The facts about a checkpoint folder.

    Raises:
        DataError: there is no config.json, it is of a model that is not known and has no `coordinate_range`, or the
            checkpoint is one that thinks before it is asked to (Qwen3-VL Thinking).
    """
    file = Path(path) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        model_type, vision = config["model_type"], config["vision_config"]
        multiple = vision["patch_size"] * vision["spatial_merge_size"]
    except FileNotFoundError:
        raise DataError(f"no checkpoint at {path}: config.json is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{file} is no configuration of a vision-language model ({reason})") from error
    if opens_thinking(Path(path)):
        raise DataError(
            f"{path} is a Thinking checkpoint: its chat template opens <think> in the prompt, so no answer has the "
            "layout that is scored and read; take the Instruct checkpoint"
        )
    trained = read_settings_file(path)
    if "coordinate_range" in trained:
        return ModelInfo(model_type, multiple, trained["coordinate_range"], trained=True)
    if "coordinate_range" not in config and model_type not in COORDINATE_RANGES:
        hint = "write coordinate_range into that file (null: boxes are in pixels of the frame)"
        raise DataError(
            f"{file}: model_type {model_type!r} is not known, as {', '.join(COORDINATE_RANGES)} are: {hint}"
        )
    return ModelInfo(model_type, multiple, config.get("coordinate_range", COORDINATE_RANGES.get(model_type)))


def opens_thinking(folder: Path) -> bool:
    """Whether the chat template ends the prompt by `<think>`, as those of Qwen's Thinking checkpoints do."""
    templates = [folder / "chat_template.jinja", folder / "chat_template.json", folder / "tokenizer_config.json"]
    texts = (path.read_text(encoding="utf-8") for path in templates if path.is_file())
    return any(_OPENS_THINKING.search(text) for text in texts)


def read_settings_file(folder: str | Path, name: str = SETTINGS_FILE) -> dict[str, Any]:
    """The content of a checkpoint's veason.json; empty where it has none. Raises DataError for a broken one."""
    path = Path(folder) / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object")
    return {RENAMED_KEYS.get(str(key), str(key)): value for key, value in content.items()}
