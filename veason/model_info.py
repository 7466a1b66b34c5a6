"""What the task needs to know of a policy's checkpoint, read from its config.json; imports no torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veason.errors import DataError

SETTINGS_FILE = "veason.json"  # beside config.json: what a training has fixed
# model_type -> side of the square that the model writes boxes in; None: pixels of the frame as it is shown.
# A `box_side` in veason.json, or else in config.json, takes precedence. Sources: the Qwen2.5-VL report (absolute
# coordinates), the Qwen3-VL cookbooks (relative, 0 to 1000).
BOX_SIDES: dict[str, int | None] = {"qwen2_5_vl": None, "qwen3_vl": 1000}

# in Jinja, or in Jinja inside JSON, where a line's end is written with one backslash more
_OPENS_THINKING = re.compile(r"add_generation_prompt.{0,80}?<\|im_start\|>assistant\\+n<think>", re.DOTALL)


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a checkpoint."""

    model_type: str  # as in config.json
    pixel_multiple: int  # the sides of a frame have to be multiples of it, in pixels: patch size times merge size
    box_side: int | None  # side of the square that boxes are given in; None: pixels of the frame as it is shown
    trained: bool = False  # whether a training has fixed `box_side`: veason.json names it


def read_model_info(path: str | Path) -> ModelInfo:
    """The facts about a checkpoint folder.

    Raises:
        DataError: there is no config.json, it is of a model that is not known and has no `box_side`, or the checkpoint
            is one that thinks before it is asked to (Qwen3-VL Thinking).
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
    if "box_side" in trained:
        return ModelInfo(model_type, multiple, trained["box_side"], trained=True)
    if "box_side" not in config and model_type not in BOX_SIDES:
        hint = "write box_side into that file (null: boxes are in pixels of the frame)"
        raise DataError(f"{file}: model_type {model_type!r} is not known, as {', '.join(BOX_SIDES)} are: {hint}")
    return ModelInfo(model_type, multiple, config.get("box_side", BOX_SIDES.get(model_type)))


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
    return content
