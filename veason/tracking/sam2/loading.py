"""Builds a SAM 2 model from a YAML file of the sam2 package's kind and a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from veason.errors import DataError
from veason.tracking.sam2.transformers_names import is_transformers, to_sam2_names

RANDOM = "random"  # in place of a checkpoint: random weights, for a test
DEFAULT_CONFIG = "configs/sam2.1/sam2.1_hiera_l.yaml"  # the model of the published evaluation
WEIGHTS = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_large.pt"

# What sam2's own builder sets for its video predictor (`sam2/build_sam.py`): fall back to the best of three masks when
# the single one is unstable, and encode a prompted mask as 0 and 1.
POSTPROCESSING = {
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
    "binarize_mask_from_pts_for_mem_enc": True,
}


def load_model(config: str | os.PathLike, checkpoint: str | os.PathLike | None, device: torch.device) -> Any:
    """Build the model that `config` describes and load its weights.

    Args:
        config: a file, or the name of one inside the sam2 package such as `configs/sam2.1/sam2.1_hiera_l.yaml`.
        checkpoint: a file of tensors, safetensors or read with `weights_only`; the state dict itself, or under the key
            "model", with sam2's names or transformers'. None or "random" leaves the weights random.

    Raises:
        DataError: there is no such config or checkpoint, or the checkpoint is not one of this model.
    """
    from hydra.utils import instantiate  # hydra and sam2 are needed only where something is tracked
    from omegaconf import OmegaConf

    settings = OmegaConf.load(find_config(config))
    for key, value in POSTPROCESSING.items():
        OmegaConf.update(settings, f"model.{key}", value, force_add=True)
    settings.model.compile_image_encoder = False  # this tracker compiles for itself
    model = instantiate(settings.model, _recursive_=True)
    if checkpoint not in (None, RANDOM):
        _load_weights(model, Path(checkpoint), config)
    return model.to(device).eval().requires_grad_(False)


def check_files(config: str | os.PathLike | None, checkpoint: str | os.PathLike | None) -> None:
    """Refuse a model file or weights that are not named or not there. Raises DataError."""
    config = config or DEFAULT_CONFIG
    if not checkpoint:  # random masks would be scored, and nothing would show it
        raise DataError(
            f"sam2_checkpoint is not set: download weights for sam2_config={config}, such as {WEIGHTS}, and give the "
            f"file ({RANDOM} tracks with random weights, for a test)"
        )
    find_config(config)
    if checkpoint != RANDOM and not Path(checkpoint).is_file():
        raise DataError(f"sam2_checkpoint={checkpoint} is no file: download SAM 2 weights from {WEIGHTS}")


def find_config(config: str | os.PathLike) -> Path:
    """The model file that `config` names, on the disk or inside the sam2 package. Raises DataError."""
    import sam2

    inside = Path(sam2.__file__).parent
    for path in (Path(config), inside / config, inside / f"{config}.yaml"):
        if path.is_file():
            return path
    raise DataError(
        f"sam2_config={config} is no SAM 2 model file: give a path, or one of {', '.join(shipped_configs())}"
    )


def shipped_configs() -> list[str]:
    """The names of the model files inside the sam2 package."""
    import sam2

    inside = Path(sam2.__file__).parent
    names = (str(path.relative_to(inside)) for path in inside.glob("configs/sam2*/*.yaml"))
    return sorted(name for name in names if "training" not in name)


def _load_weights(model: Any, path: Path, config: str | os.PathLike) -> None:
    if not path.is_file():
        raise DataError(f"sam2_checkpoint={path} is no file")
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    try:
        model.load_state_dict(to_sam2_names(state) if is_transformers(state) else state)
    except RuntimeError as error:
        # The first line is torch's own, the others can be hundreds.
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise DataError(f"{path} does not hold the weights of sam2_config={config}: {reason[:300]}") from error


def cast_matrix_weights(model: Any, dtype: torch.dtype) -> None:
    """Store the weights of matrix products and convolutions in `dtype`, which autocast would convert at every call."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.to(dtype)
