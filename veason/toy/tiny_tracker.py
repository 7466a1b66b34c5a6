"""A tiny SAM 2: a YAML of the `sam2` package's own classes and a checkpoint of random weights.

`write_tracker` writes `sam2_tiny.yaml` and `sam2_tiny.pt` ({"model": state dict}, as in the published checkpoints). The
architecture is SAM 2.1's (Hiera trunk, memory attention, object pointers, occlusion scores) with smaller sizes and two
differences: one mask per prompt (`multimask_output_in_sam: false`), since a box is not ambiguous, and no dropout, since
training clips are never repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base

from veason.tracking.sam2.memory_settings import SWITCHES, memory_attention, memory_encoder, sine_positions


@dataclass(frozen=True)
class TrackerSize:
    """The sizes of a tiny SAM 2; `image_size`, the side in pixels of the resized frames, is a multiple of 32."""

    image_size: int = 128
    hidden_size: int = 128
    memory_size: int = 64
    trunk_size: int = 32  # channels of the first stage, doubled by each later stage
    trunk_blocks: tuple[int, int, int, int] = (1, 2, 3, 1)
    memory_layers: int = 2
    memory_frames: int = 7  # the prompted frame and the last six, as in SAM 2
    object_pointers: int = 16

    def __post_init__(self) -> None:
        if self.image_size % 32:
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of 32, the side of a trunk window in pixels"
            )
        if self.hidden_size % 32 or self.hidden_size % self.memory_size:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a multiple of 32 and of memory_size={self.memory_size}"
            )


def tracker_config(size: TrackerSize | None = None) -> dict[str, Any]:
    """The YAML's content, `{"model": {"_target_": "sam2...", ...}}`, for hydra's `instantiate`."""
    size = size or TrackerSize()
    width, side = size.hidden_size, size.image_size // 16
    downsampler = {"embed_dim": width, "kernel_size": 3, "stride": 2, "padding": 1}
    fuser = {"dim": width, "kernel_size": 7, "padding": 3, "layer_scale_init_value": 1e-6}
    model = {
        "_target_": "sam2.modeling.sam2_base.SAM2Base",
        "image_encoder": _image_encoder(size),
        "memory_attention": memory_attention(width, size.memory_size, side, size.memory_layers, 4 * width),
        "memory_encoder": memory_encoder(width, size.memory_size, downsampler, fuser, fuser_layers=2),
        "image_size": size.image_size,
        "num_maskmem": size.memory_frames,
        "max_obj_ptrs_in_encoder": size.object_pointers,
        # the memory encoder gets sigmoid(mask logits) scaled to [-10, 10]
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "no_obj_embed_spatial": True,
        "multimask_output_in_sam": False,
        "compile_image_encoder": False,
        **SWITCHES,
    }
    return {"model": model}


def _image_encoder(size: TrackerSize) -> dict[str, Any]:
    blocks = size.trunk_blocks
    third_stage = blocks[0] + blocks[1]
    return {
        "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
        "scalp": 1,
        "trunk": {
            "_target_": "sam2.modeling.backbones.hieradet.Hiera",
            "embed_dim": size.trunk_size,
            "num_heads": 1,
            "stages": list(blocks),
            # global attention in the third stage (stride 16), after its first block
            "global_att_blocks": list(range(third_stage + 1, third_stage + blocks[2])),
            "window_pos_embed_bkg_spatial_size": [7, 7],
            "window_spec": [8, 4, 8, 4],
        },
        "neck": {
            "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck",
            "position_encoding": sine_positions(size.hidden_size),
            "d_model": size.hidden_size,
            "backbone_channel_list": [size.trunk_size * 2**stage for stage in (3, 2, 1, 0)],
            "fpn_top_down_levels": [2, 3],
            "fpn_interp_model": "nearest",
        },
    }


def build_tracker_model(size: TrackerSize | None = None, seed: int = 0) -> SAM2Base:
    """The model on the CPU in training mode, initialized from `seed`; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return instantiate(tracker_config(size)["model"])


def write_tracker(output: str | Path, size: TrackerSize | None = None, seed: int = 0) -> SAM2Base:
    """Writes `sam2_tiny.yaml` and `sam2_tiny.pt` into the folder `output`; returns the model."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    # sam2's build functions expect hydra's global package, as in their own files
    text = "# @package _global_\n\n" + OmegaConf.to_yaml(OmegaConf.create(tracker_config(size)))
    (folder / "sam2_tiny.yaml").write_text(text, encoding="utf-8")
    model = build_tracker_model(size, seed)
    torch.save({"model": model.state_dict()}, folder / "sam2_tiny.pt")
    return model
