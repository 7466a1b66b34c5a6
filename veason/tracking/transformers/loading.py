"""Loads a tracker of the transformers package: from a checkpoint folder, or with random weights for a test."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from veason.errors import DataError
from veason.tracking.sam2.preprocessing import PixelFormat

RANDOM = "random"  # in place of a checkpoint: random weights of the architecture that `config` names, for a test

# model_type in config.json -> the class that tracks boxes and points; a sam3_video checkpoint holds SAM 3's tracker too
TRACKER_MODEL_CLASSES = {
    "sam2_video": "Sam2VideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
    "sam3_video": "Sam3TrackerVideoModel",
    "edgetam_video": "EdgeTamVideoModel",
}
# How frames are resized and normalized. Source: huggingface/transformers, `convert_sam2_video_to_hf.py` and
# `convert_sam3_video_to_hf.py`, which write the processors of the released checkpoints.
IMAGENET_PIXELS = PixelFormat(resample="bilinear")
SAM3_PIXELS = PixelFormat((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
PIXELS = {
    "Sam2VideoModel": IMAGENET_PIXELS,
    "EdgeTamVideoModel": IMAGENET_PIXELS,
    "Sam3TrackerVideoModel": SAM3_PIXELS,
    "Sam3VideoModel": SAM3_PIXELS,
}


def read_model_type(folder: str | os.PathLike) -> str:
    """`model_type` of a checkpoint folder, or of a config.json. Raises DataError."""
    path = Path(folder) / "config.json" if Path(folder).is_dir() else Path(folder)
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except FileNotFoundError:
        raise DataError(f"no checkpoint at {folder}: config.json is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no configuration of a transformers model") from error


def check_checkpoint_source(
    checkpoint: str | os.PathLike | None,
    config: str | os.PathLike | None,
    kinds: Sequence[str] = tuple(TRACKER_MODEL_CLASSES),
) -> None:
    """Refuse a checkpoint that is not there or not of one of the model types `kinds`. Raises DataError."""
    if not checkpoint:  # random masks would be scored, and nothing would show it
        raise DataError(
            f"tracker_options.checkpoint is not set: give a folder of {', '.join(kinds)} ({RANDOM} with "
            "tracker_options.config tracks with random weights, for a test)"
        )
    if checkpoint == RANDOM:
        if not config:
            raise DataError(f"tracker_options.config is not set: checkpoint={RANDOM} needs a config.json or {kinds[0]}")
        kind = str(config) if config in kinds else read_model_type(config)
    else:
        kind = read_model_type(checkpoint)
        if not any(Path(checkpoint).glob("*.safetensors")):
            raise DataError(f"no checkpoint at {checkpoint}: there is no *.safetensors")
    if kind not in kinds:
        raise DataError(f"{config if checkpoint == RANDOM else checkpoint} is a {kind}; fit are {', '.join(kinds)}")


def load_model(
    checkpoint: str | os.PathLike | None,
    config: str | os.PathLike | None,
    device: torch.device,
    dtype: torch.dtype,
    classes: dict[str, str] = TRACKER_MODEL_CLASSES,
) -> Any:
    """The model of a checkpoint folder, or of random weights, on `device`.

    Args:
        config: a config.json, a folder with one, or a model type for its default sizes; read for random weights alone.
        classes: model type -> class of the transformers package.

    Raises:
        DataError: as `check_checkpoint_source`, or weights are missing, or a package that the model needs.
    """
    import transformers

    check_checkpoint_source(checkpoint, config, tuple(classes))
    try:
        if checkpoint == RANDOM:
            model = _random_model(config, classes)
        else:
            model = _load_folder(str(checkpoint), getattr(transformers, classes[read_model_type(checkpoint or "")]))
    except ImportError as error:  # EdgeTAM's image encoder is one of timm's
        raise DataError(
            f"the model needs a package that is not installed: {str(error).strip().splitlines()[0]}"
        ) from error
    return model.to(device, dtype).eval().requires_grad_(False)


def _load_folder(folder: str, cls: Any) -> Any:
    """A model from the safetensors of a folder: a pickle (pytorch_model.bin) is never run, wherever it is named."""
    from safetensors import SafetensorError

    try:
        model, found = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder} holds no weights that can be loaded ({type(error).__name__}: {reason})") from error
    if missing := sorted(found["missing_keys"]):
        raise DataError(f"{folder} does not hold the weights of {cls.__name__}: no {missing[0]}")
    return model


def _random_model(config: str | os.PathLike | None, classes: dict[str, str]) -> Any:
    import transformers

    kind = str(config) if config in classes else read_model_type(config or "")
    cls = getattr(transformers, classes[kind])
    settings = cls.config_class() if config in classes else cls.config_class.from_pretrained(str(config))
    model = cls(settings)
    if hasattr(model, "shared_image_embedding"):  # one encoding of positions, as in every released checkpoint
        shared = model.prompt_encoder.shared_embedding.positional_embedding
        model.shared_image_embedding.positional_embedding.copy_(shared)
    return model
