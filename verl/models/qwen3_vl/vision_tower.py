"""The Qwen3-VL vision tower over all images of a packed sequence at once.

Every block attends over a whole image. Patches get a learned position on top of the rotary one: a square grid that is
interpolated to the image's own. The positions of an image size are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from verl.models.vision_attention import PatchSegments, rotary_embedding_2d


@dataclass(frozen=True)
class VisionMetadata:
    """How the tower goes over the patches of a packed sequence.

    Attributes:
        rows_columns: int64 [patches, 2] of each patch in its image.
        corners: int64 [patches, 4], the entries of the learned grid around each patch.
        weights: fp32 [patches, 4], their weights in the bilinear interpolation.
        images: what attends to each other.
    """

    rows_columns: Tensor
    corners: Tensor
    weights: Tensor
    images: PatchSegments


pytree.register_dataclass(VisionMetadata)


@lru_cache(maxsize=256)
def _image_positions(height: int, width: int, merge: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """`rows_columns`, `corners` and `weights` of an image of height x width patches, in the processor's order: merged
    units (merge x merge patches) row by row. The corners of image and grid (side x side entries) coincide.
    """
    rows, columns = torch.meshgrid(torch.arange(height // merge), torch.arange(width // merge), indexing="ij")
    inside = torch.cartesian_prod(torch.arange(merge), torch.arange(merge))
    units = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    rows_columns = (units[:, None] * merge + inside).flatten(0, 1)
    entries, shares = [], []
    for axis, count in enumerate((height, width)):
        at = torch.linspace(0, side - 1, count)[rows_columns[:, axis]]
        low = at.long()
        entries.append(torch.stack([low, (low + 1).clamp(max=side - 1)], dim=1))
        shares.append(torch.stack([1 - (at - low), at - low], dim=1))
    corners = entries[0][:, :, None] * side + entries[1][:, None]
    return rows_columns, corners.flatten(1), (shares[0][:, :, None] * shares[1][:, None]).flatten(1)


def make_vision_metadata(grids: Sequence[tuple[int, int, int]], vision_config: Any) -> VisionMetadata:
    """The metadata of images of these grids (time, height and width in patches), in order.

    Raises:
        ValueError: a grid does not divide into merged units.
    """
    merge, side = vision_config.spatial_merge_size, math.isqrt(vision_config.num_position_embeddings)
    for t, h, w in grids:
        if h % merge or w % merge or min(t, h, w) < 1:
            raise ValueError(f"an image of {t}x{h}x{w} patches does not divide into units of {merge}x{merge}")
    frames = [(h, w) for t, h, w in grids for _ in range(t)]
    rows_columns, corners, weights = zip(*(_image_positions(h, w, merge, side) for h, w in frames))
    images = PatchSegments.of([h * w for h, w in frames])
    return VisionMetadata(torch.cat(rows_columns), torch.cat(corners), torch.cat(weights), images)


def encode_images(visual: Any, pixel_values: Tensor, metadata: VisionMetadata) -> tuple[Tensor, list[Tensor]]:
    """The visual tokens of all images and those of each deepstack level, all [units, out_hidden_size], in the order of
    the prompt's image tokens.

    Args:
        visual: transformers' tower whose blocks hold `VisionAttention`.
        pixel_values: [patches, channels * temporal_patch * patch * patch].
    """
    config = visual.config
    embed = visual.patch_embed.proj  # a convolution whose stride is its kernel: a product over flat patches
    hidden = F.linear(pixel_values.to(embed.weight.dtype), embed.weight.flatten(1), embed.bias)
    learned = (visual.pos_embed(metadata.corners) * metadata.weights[..., None]).sum(1)
    hidden = hidden + learned.to(hidden.dtype)
    rotary = rotary_embedding_2d(metadata.rows_columns, config)
    deepstack_features: list[Tensor] = []
    for number, block in enumerate(visual.blocks):
        hidden = block(
            hidden, cu_seqlens=metadata.images.cu_seqlens, position_embeddings=rotary, segments=metadata.images
        )
        if number in config.deepstack_visual_indexes:
            deepstack_features.append(visual.deepstack_merger_list[len(deepstack_features)](hidden))
    return visual.merger(hidden), deepstack_features
