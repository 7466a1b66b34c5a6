"""The Qwen2.5-VL vision tower over all images of a row at once.

Most of its layers attend inside windows of 112 x 112 pixels, the others inside one frame. transformers loops over
windows in Python unless flash-attn is installed; here one variable-length call (CUDA, half precision) or one padded
batch of windows (elsewhere) does the same sums. The window order of a frame is computed once per frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from verl.models.fused import rotate


@dataclass(frozen=True)
class Padding:
    """Runs of unequal length as a batch.

    Attributes:
        slots: int64 [runs, longest], the patch in each slot, 0 in empty ones. `filled`: bool [runs, longest].
        places: int64 [patches], the slot of each patch in the flattened batch.
    """

    slots: Tensor
    filled: Tensor
    places: Tensor


@dataclass(frozen=True)
class Segments:
    """Patches that attend to each other: consecutive runs.

    Attributes:
        bounds: int32 [runs + 1], cumulative lengths.
        longest: the longest run.
        padding: None where all runs are equally long.
    """

    bounds: Tensor
    longest: int
    padding: Padding | None

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Segments:
        counts = torch.tensor(lengths)
        bounds = F.pad(counts.cumsum(0), (1, 0))
        longest = int(counts.max())
        if bool((counts == longest).all()):
            return cls(bounds.int(), longest, None)
        slot = torch.arange(longest)
        filled = slot < counts[:, None]
        padding = Padding((bounds[:-1, None] + slot).where(filled, 0), filled, filled.flatten().nonzero()[:, 0])
        return cls(bounds.int(), longest, padding)


@dataclass(frozen=True)
class VisionPlan:
    """How the tower goes over the patches of a row.

    Attributes:
        grids: (time, height, width) in patches of every image.
        order: int64 [visual tokens]: the merged units (2 x 2 patches) window by window. `reverse` undoes it.
        rows_columns: int64 [patches, 2] of each patch in its frame, in window order.
        windows, frames: what attends to each other in windowed and in full layers.
    """

    grids: tuple[tuple[int, int, int], ...]
    order: Tensor
    reverse: Tensor
    rows_columns: Tensor
    windows: Segments
    frames: Segments


@lru_cache(maxsize=256)
def _frame_windows(height: int, width: int, merge: int, side: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """A frame of height x width patches: its merged units window by window (windows of side x side units, row by row),
    the row and column of every patch in that order, and the patches of each window.
    """
    rows, columns = torch.meshgrid(torch.arange(height // merge), torch.arange(width // merge), indexing="ij")
    window = (rows // side) * -(-(width // merge) // side) + columns // side
    order = window.flatten().argsort(stable=True)
    inside = torch.cartesian_prod(torch.arange(merge), torch.arange(merge))
    corners = torch.stack([rows.flatten(), columns.flatten()], dim=1)[order] * merge
    counts = window.flatten().bincount() * merge**2
    return order, (corners[:, None] + inside).flatten(0, 1), tuple(counts.tolist())


def plan_vision(grids: Sequence[tuple[int, int, int]], vision_config: Any) -> VisionPlan:
    """The plan for images of these grids, in order.

    Raises:
        ValueError: a grid does not divide into merged units.
    """
    merge = vision_config.spatial_merge_size
    side = vision_config.window_size // merge // vision_config.patch_size
    orders: list[Tensor] = []
    places: list[Tensor] = []
    windows: list[int] = []
    frames: list[int] = []
    units = 0
    for t, h, w in grids:
        if h % merge or w % merge or min(t, h, w) < 1:
            raise ValueError(f"an image of {t}x{h}x{w} patches does not divide into units of {merge}x{merge}")
        order, rows_columns, counts = _frame_windows(h, w, merge, side)
        for _ in range(t):
            orders.append(order + units)
            places.append(rows_columns)
            windows.extend(counts)
            frames.append(h * w)
            units += len(order)
    order = torch.cat(orders)
    return VisionPlan(
        tuple(grids), order, order.argsort(), torch.cat(places), Segments.of(windows), Segments.of(frames)
    )


class VisionAttention(nn.Module):
    """Attention of one vision block over runs of patches; holds the block's own projections, so weights keep their
    names.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.num_heads: int = attention.num_heads

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], segments: Segments, **_: Any
    ) -> Tensor:
        """hidden_states [patches, dim]; position_embeddings: cos and sin, fp32 [patches, head_dim]."""
        patches = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).view(patches, 3, self.num_heads, -1).unbind(1)
        cos, sin = position_embeddings
        query, key = rotate(query, key, cos[:, None], sin[:, None])
        return self.proj(attend_segments(query, key, value, segments).reshape(patches, -1))


def attend_segments(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v inside each run of patches; all [patches, heads, head_dim]."""
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        bounds, longest = segments.bounds, segments.longest
        return varlen_attn(query, key, value, bounds, bounds, longest, longest)  # type: ignore[return-value]
    padding = segments.padding
    if padding is None:
        query, key, value = (x.unflatten(0, (-1, segments.longest)).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(0, 1)
    query, key, value = (x[padding.slots].transpose(1, 2) for x in (query, key, value))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=padding.filled[:, None, None])
    return output.transpose(1, 2).flatten(0, 1)[padding.places]


def rotary_angles(rows_columns: Tensor, vision_config: Any) -> tuple[Tensor, Tensor]:
    """cos and sin of the 2D rotary embedding, fp32 [patches, head_dim]: half of the frequencies turn with the row, half
    with the column.
    """
    half = vision_config.hidden_size // vision_config.num_heads // 2
    theta = (getattr(vision_config, "rope_parameters", None) or {}).get("rope_theta", 10000.0)
    frequencies = theta ** -(torch.arange(0, half, 2, dtype=torch.float32, device=rows_columns.device) / half)
    angles = (rows_columns[..., None].float() * frequencies).flatten(1).repeat(1, 2)
    return angles.cos(), angles.sin()


def encode_images(visual: Any, pixel_values: Tensor, plan: VisionPlan) -> Tensor:
    """The visual tokens [units, out_hidden_size] of all images, in the order of the prompt's image tokens.

    Args:
        visual: transformers' tower whose blocks hold `VisionAttention`.
        pixel_values: [patches, channels * temporal_patch * patch * patch].
    """
    config = visual.config
    unit = config.spatial_merge_size**2
    embed = (
        visual.patch_embed.proj.weight
    )  # a convolution whose stride is its kernel: a matrix product over flat patches
    pixels = pixel_values.to(embed.dtype).unflatten(0, (-1, unit))[plan.order].flatten(0, 1)
    hidden = F.linear(pixels, embed.flatten(1))
    angles = rotary_angles(plan.rows_columns, config)
    for number, block in enumerate(visual.blocks):
        segments = plan.frames if number in config.fullatt_block_indexes else plan.windows
        hidden = block(hidden, cu_seqlens=segments.bounds, position_embeddings=angles, segments=segments)
    return visual.merger(hidden)[plan.reverse]
