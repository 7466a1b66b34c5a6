"""The weights of transformers' SAM 2 and SAM 3 trackers under the names of the sam2 package.

Both packages build the same networks; only the names differ.
Source of the names: huggingface/transformers `src/transformers/models/sam2_video/modeling_sam2_video.py` and
facebookresearch/sam2 `sam2/modeling/sam2_base.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from veason.errors import DataError

TRANSFORMERS_KEY = "mask_decoder.iou_token.weight"  # in a checkpoint of transformers and in no other
POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"

# Patterns and what replaces them, in this order; each applies to the result of those before.
RENAMES = (
    (r"^vision_encoder\.backbone\.patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
    (r"^(memory_encoder\.fuser\.layers\.\d+\.)scale$", r"\1gamma"),
    (r"^(memory_encoder\.fuser\.layers\.\d+\.)depthwise_conv\.", r"\1dwconv."),
    (r"^(memory_encoder\.fuser\.layers\.\d+\.)pointwise_conv(\d)\.", r"\1pwconv\2."),
    (rf"^{re.escape(POSITIONS)}$", "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.upscale_conv1\.", "sam_mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "sam_mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "sam_mask_decoder.output_upscaling.3."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.layer_norm(\w*)\.", r".norm\1."),
)


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has transformers' names."""
    return TRANSFORMERS_KEY in state


def to_sam2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `Sam2VideoModel`, or of `Sam3TrackerVideoModel` without its vision encoder, for `SAM2Base`.

    Raises:
        DataError: the two copies of the encoding of positions differ, of which sam2 has one.
    """
    state = dict(state)
    if not torch.equal(state.pop("shared_image_embedding.positional_embedding"), state[POSITIONS]):
        raise DataError(f"shared_image_embedding and {POSITIONS} differ, which no SAM 2 or 3 checkpoint has")
    for number, row in enumerate(state.pop("prompt_encoder.point_embed.weight")):
        state[f"prompt_encoder.point_embeddings.{number}.weight"] = row[None]
    numbered = _number_layers(state)
    return {_rename(key): value for key, value in numbered.items()}


def _rename(key: str) -> str:
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _number_layers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers of perceptrons and of mask downsamplers as the numbered members that they are in sam2."""
    found = {}
    for key, value in state.items():
        if match := re.match(r"(.*)\.(proj_in|proj_out|layers\.\d+)\.(weight|bias)$", key):
            prefix, layer, kind = match.groups()
            if f"{prefix}.proj_in.weight" in state:  # a perceptron: proj_in, layers.0 .., proj_out
                inner = sum(other.startswith(f"{prefix}.layers.") and other.endswith("weight") for other in state)
                numbers = {"proj_in": 0, "proj_out": inner + 1} | {f"layers.{n}": n + 1 for n in range(inner)}
                key = f"{prefix}.layers.{numbers[layer]}.{kind}"
        elif match := re.match(r"(memory_encoder\.mask_downsampler\.)layers\.(\d+)\.(conv|layer_norm)(\..*)$", key):
            key = f"{match[1]}encoder.{_sequential(int(match[2]), match[3])}{match[4]}"
        elif match := re.match(r"(prompt_encoder\.)mask_embed\.(conv|layer_norm)(\d)(\..*)$", key):
            key = f"{match[1]}mask_downscaling.{_sequential(int(match[3]) - 1, match[2])}{match[4]}"
        elif match := re.match(r"(memory_encoder\.mask_downsampler\.)final_conv(\..*)$", key):
            stages = sum(other.startswith(f"{match[1]}layers.") and other.endswith("conv.weight") for other in state)
            key = f"{match[1]}encoder.{_sequential(stages, 'conv')}{match[2]}"
        found[key] = value
    return found


def _sequential(stage: int, part: str) -> int:
    """The number of a stage's convolution or norm in a sequence of convolution, norm, activation."""
    return 3 * stage + (part == "layer_norm")
