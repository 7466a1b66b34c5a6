"""The Qwen2.5-VL vision tower over all images of a packed sequence at once.

Most layers attend inside windows of 112 x 112 pixels, the others inside one image. The window order of an image is
computed once per image size.
"""

from __future__ import annotations

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
        order: int64 [visual tokens]: the merged units (2 x 2 patches) window by window. `reverse` undoes it.
        rows_columns: int64 [patches, 2] of each patch in its image, in window order.
        windows, images: what attends to each other in windowed and in full layers.
    """

    order: Tensor
    reverse: Tensor
    rows_columns: Tensor
    windows: PatchSegments
    images: PatchSegments


pytree.register_dataclass(VisionMetadata)


@lru_cache(maxsize=256)
def _image_windows(height: int, width: int, merge: int, side: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """An image of height x width patches: its merged units window by window (windows of side x side units, row by row),
    the row and column of every patch in that order, and the patches of each window.
    """
    rows, columns = torch.meshgrid(torch.arange(height // merge), torch.arange(width // merge), indexing="ij")
    window = (rows // side) * -(-(width // merge) // side) + columns // side
    order = window.flatten().argsort(stable=True)
    inside = torch.cartesian_prod(torch.arange(merge), torch.arange(merge))
    corners = torch.stack([rows.flatten(), columns.flatten()], dim=1)[order] * merge
    counts = window.flatten().bincount() * merge**2
    return order, (corners[:, None] + inside).flatten(0, 1), tuple(counts.tolist())


def make_vision_metadata(grids: Sequence[tuple[int, int, int]], vision_config: Any) -> VisionMetadata:
    """The metadata of images of these grids (time, height and width in patches), in order.

    Raises:
        ValueError: a grid does not divide into merged units.
    """
    merge = vision_config.spatial_merge_size
    side = vision_config.window_size // merge // vision_config.patch_size
    orders: list[Tensor] = []
    positions: list[Tensor] = []
    windows: list[int] = []
    images: list[int] = []
    units = 0
    for t, h, w in grids:
        if h % merge or w % merge or min(t, h, w) < 1:
            raise ValueError(f"an image of {t}x{h}x{w} patches does not divide into units of {merge}x{merge}")
        order, rows_columns, counts = _image_windows(h, w, merge, side)
        for _ in range(t):
            orders.append(order + units)
            positions.append(rows_columns)
            windows.extend(counts)
            images.append(h * w)
            units += len(order)
    order = torch.cat(orders)
    return VisionMetadata(
        order, order.argsort(), torch.cat(positions), PatchSegments.of(windows), PatchSegments.of(images)
    )


def encode_images(visual: Any, pixel_values: Tensor, metadata: VisionMetadata) -> Tensor:
    """The visual tokens [units, out_hidden_size] of all images, in the order of the prompt's image tokens.

    Args:
        visual: transformers' tower whose blocks hold `VisionAttention`.
        pixel_values: [patches, channels * temporal_patch * patch * patch].
    """
    config = visual.config
    unit = config.spatial_merge_size**2
    embed = visual.patch_embed.proj.weight  # a convolution whose stride is its kernel: a product over flat patches
    pixels = pixel_values.to(embed.dtype).unflatten(0, (-1, unit))[metadata.order].flatten(0, 1)
    hidden = F.linear(pixels, embed.flatten(1))
    rotary = rotary_embedding_2d(metadata.rows_columns, config)
    for number, block in enumerate(visual.blocks):
        segments = metadata.images if number in config.fullatt_block_indexes else metadata.windows
        hidden = block(hidden, cu_seqlens=segments.cu_seqlens, position_embeddings=rotary, segments=segments)
    return visual.merger(hidden)[metadata.reverse]
