"""Builds SAM 3's tracker from the sam2 package's modules and transformers' image encoder and weights.

Below its image encoder SAM 3's tracker is SAM 2's network with other sizes: the same prompt encoder, mask decoder,
memory attention and memory encoder. So it fits sam2's `SAM2Base`, and everything that is built on that.
Source: huggingface/transformers `src/transformers/models/sam3_tracker_video/modular_sam3_tracker_video.py`.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from veason.errors import DataError
from veason.tracking.sam2.loading import POSTPROCESSING
from veason.tracking.sam2.memory_settings import SWITCHES, memory_attention, memory_encoder, sine_positions
from veason.tracking.sam2.transformers_names import to_sam2_names
from veason.tracking.transformers.loading import TRACKER_MODEL_CLASSES, load_model

MODEL_CLASSES = {kind: TRACKER_MODEL_CLASSES[kind] for kind in ("sam3_video", "sam3_tracker_video")}
# What sam2 builds in and transformers leaves to the configuration.
FIXED = {
    "mask_decoder_config.num_hidden_layers": 2,
    "mask_decoder_config.num_attention_heads": 8,
    "mask_decoder_config.attention_downsample_rate": 2,
    "mask_decoder_config.num_multimask_outputs": 3,
    "mask_decoder_config.hidden_act": "gelu",
    "prompt_encoder_config.mask_input_channels": 16,
    "memory_attention_feed_forward_hidden_act": "relu",
    "mask_downsampler_total_stride": 16,
    "enable_temporal_pos_encoding_for_object_pointers": True,
}


class ImageEncoder(nn.Module):
    """transformers' `Sam3VisionModel` with the interface of sam2's encoder: levels [n, C, h, w], the coarsest last."""

    def __init__(self, encoder: Any, channels: int, positions: nn.Module):
        super().__init__()
        self.encoder = encoder
        # not submodules of their own: what sam2's code and `Sam2Network` ask an image encoder for
        self.neck = SimpleNamespace(d_model=channels, position_encoding=positions)
        self.trunk = SimpleNamespace(blocks=encoder.backbone.layers)

    def forward(self, pixels: Tensor) -> dict[str, list[Tensor]]:
        levels = self.encoder(pixels, return_dict=True).fpn_hidden_states
        return {"backbone_fpn": list(levels[:-1])}  # the tracker leaves out the level of half the resolution


def load_sam3(checkpoint: str | os.PathLike | None, config: str | os.PathLike | None, device: torch.device) -> Any:
    """SAM 3's tracker as sam2's `SAM2Base`, in fp32 on `device`.

    Args:
        checkpoint: a folder of transformers, of the whole SAM 3 (sam3_video) or of its tracker; or "random".
        config: for random weights, see `veason.tracking.transformers.loading.load_model`.

    Raises:
        DataError: there is no such checkpoint, or it is not of this network.
    """
    return to_sam2_base(load_model(checkpoint, config, torch.device("cpu"), torch.float32, MODEL_CLASSES)).to(device)


def to_sam2_base(tracker: Any) -> Any:
    """A `Sam3TrackerVideoModel` as a `SAM2Base` that shares its image encoder and has copies of its other weights."""
    from hydra.utils import instantiate

    for key, value in FIXED.items():
        found = tracker.config
        for name in key.split("."):
            found = getattr(found, name)
        if found != value:
            raise DataError(f"tracker=sam3: the checkpoint's {key} is {found!r}, and sam2's modules have {value!r}")
    settings = sam2_base_settings(tracker.config)
    positions = instantiate(sine_positions(settings["d_model"]))
    encoder = ImageEncoder(tracker.vision_encoder, settings.pop("d_model"), positions)
    model = instantiate(settings, image_encoder=encoder, _recursive_=True)
    state = {key: value for key, value in tracker.state_dict().items() if not key.startswith("vision_encoder.")}
    encoder_state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    try:
        model.load_state_dict(to_sam2_names(state) | encoder_state)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise DataError(f"tracker=sam3: the checkpoint does not fit SAM 3's tracker: {reason[:300]}") from error
    return model.eval().requires_grad_(False)


def sam2_base_settings(config: Any) -> dict[str, Any]:
    """The arguments of `SAM2Base` for hydra's `instantiate`, all but the image encoder; `d_model` besides."""
    side = config.image_size // config.vision_config.backbone_config.patch_size
    width, memory = config.vision_config.fpn_hidden_size, config.memory_encoder_output_channels
    return {
        "_target_": "sam2.modeling.sam2_base.SAM2Base",
        "d_model": width,
        "memory_attention": memory_attention(
            config.memory_attention_hidden_size,
            memory,
            side,
            config.memory_attention_num_layers,
            config.memory_attention_feed_forward_hidden_size,
            config.memory_attention_num_attention_heads,
            config.memory_attention_downsample_rate,
            config.rope_parameters["rope_theta"],
        ),
        "memory_encoder": _memory_encoder(config, width, memory),
        "image_size": config.image_size,
        "backbone_stride": config.vision_config.backbone_config.patch_size,
        "num_maskmem": config.num_maskmem,
        "max_cond_frames_in_attn": config.max_cond_frame_num,
        "max_obj_ptrs_in_encoder": config.max_object_pointers_in_encoder,
        "sigmoid_scale_for_mem_enc": config.sigmoid_scale_for_mem_enc,
        "sigmoid_bias_for_mem_enc": config.sigmoid_bias_for_mem_enc,
        "no_obj_embed_spatial": config.enable_occlusion_spatial_embedding,
        "multimask_output_in_sam": config.multimask_output_in_sam,
        "multimask_output_for_tracking": config.multimask_output_for_tracking,
        "multimask_min_pt_num": config.multimask_min_pt_num,
        "multimask_max_pt_num": config.multimask_max_pt_num,
        "sam_mask_decoder_extra_args": {
            name: getattr(config.mask_decoder_config, name)
            for name in (key.rpartition(".")[2] for key in POSTPROCESSING)
            if name.startswith("dynamic_multimask")
        },
        "binarize_mask_from_pts_for_mem_enc": True,
        "use_multimask_token_for_obj_ptr": True,
        **SWITCHES,
    }


def _memory_encoder(config: Any, width: int, memory: int) -> dict[str, Any]:
    names = {"dim": "embed_dim"} | {name: name for name in ("kernel_size", "padding", "layer_scale_init_value")}
    fuser = {name: getattr(config, f"memory_fuser_{source}") for name, source in names.items()}
    options = ("embed_dim", "kernel_size", "stride", "padding")
    downsampler = {name: getattr(config, f"mask_downsampler_{name}") for name in options}
    return memory_encoder(width, memory, downsampler, fuser, config.memory_fuser_num_layers)
