"""What the task needs to know of a policy's checkpoint, read from its config.json; imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from veason.errors import DataError

# model_type -> side of the square that the model writes boxes in; None: pixels of the frame as it is shown.
# A `box_side` in config.json takes precedence. Sources: the Qwen2.5-VL report (absolute coordinates), the Qwen3-VL
# cookbooks (relative, 0 to 1000).
BOX_SIDES: dict[str, int | None] = {"qwen2_5_vl": None, "qwen3_vl": 1000}


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a checkpoint.

    Attributes:
        model_type: as in config.json.
        pixel_multiple: the sides of a frame have to be multiples of it, in pixels: patch size times merge size.
        box_side: side of the square that boxes are given in; None: pixels of the frame as it is shown.
    """

    model_type: str
    pixel_multiple: int
    box_side: int | None


def read_model_info(path: str | Path) -> ModelInfo:
    """The facts about a checkpoint folder.

    Raises:
        DataError: there is no config.json, or it is of a model that is not known and has no `box_side`.
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
    if "box_side" not in config and model_type not in BOX_SIDES:
        hint = "write box_side into that file (null: boxes are in pixels of the frame)"
        raise DataError(f"{file}: model_type {model_type!r} is not known, as {', '.join(BOX_SIDES)} are: {hint}")
    return ModelInfo(model_type, multiple, config.get("box_side", BOX_SIDES.get(model_type)))
