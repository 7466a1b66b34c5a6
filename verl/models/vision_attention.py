"""What vision towers share: attention inside runs of patches, without a loop over them, and 2D rotary embeddings.

transformers loops over runs in Python unless flash-attn is installed; here one variable-length call (CUDA, half
precision) or one padded batch (elsewhere) computes the same sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.utils import _pytree as pytree

from verl.models.fused_kernels import apply_rotary


@dataclass(frozen=True)
class PaddedPatches:
    """Runs of unequal length as a batch.

    Attributes:
        patches: int64 [runs, longest], the patch in each slot, 0 in empty slots.
        mask: bool [runs, longest], False in empty slots.
        slots: int64 [patches], the slot of each patch in the flattened batch.
    """

    patches: Tensor
    mask: Tensor
    slots: Tensor


@dataclass(frozen=True)
class PatchSegments:
    """Consecutive runs of patches that attend to each other.

    Attributes:
        cu_seqlens: int32 [runs + 1], cumulative lengths.
        max_seqlen: the longest run.
        padding: None where all runs are equally long.
    """

    cu_seqlens: Tensor
    max_seqlen: int
    padding: PaddedPatches | None

    @classmethod
    def of(cls, lengths: Sequence[int]) -> PatchSegments:
        counts = torch.tensor(lengths)
        ends = F.pad(counts.cumsum(0), (1, 0))
        longest = int(counts.max())
        if bool((counts == longest).all()):
            return cls(ends.int(), longest, None)
        slot = torch.arange(longest)
        mask = slot < counts[:, None]
        padding = PaddedPatches((ends[:-1, None] + slot).where(mask, 0), mask, mask.flatten().nonzero()[:, 0])
        return cls(ends.int(), longest, padding)


for _node in (PaddedPatches, PatchSegments):
    pytree.register_dataclass(_node)


class VisionAttention(nn.Module):
    """Attention of one vision block over runs of patches, with the block's own projections under their names."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads: int = attention.num_heads

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], segments: PatchSegments, **_: Any
    ) -> Tensor:
        """hidden_states [patches, dim]; position_embeddings: cos and sin, fp32 [patches, head_dim]."""
        patches = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).view(patches, 3, self.num_heads, -1).unbind(1)
        cos, sin = position_embeddings
        query, key = apply_rotary(query, key, cos[:, None], sin[:, None])
        return self.proj(patch_attention(query, key, value, segments).reshape(patches, -1))


def patch_attention(query: Tensor, key: Tensor, value: Tensor, segments: PatchSegments) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v inside each run of patches; all [patches, heads, head_dim]."""
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        bounds, longest = segments.cu_seqlens, segments.max_seqlen
        return varlen_attn(query, key, value, bounds, bounds, longest, longest)  # type: ignore[return-value]
    padding = segments.padding
    if padding is None:
        query, key, value = (x.unflatten(0, (-1, segments.max_seqlen)).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(0, 1)
    query, key, value = (x[padding.patches].transpose(1, 2) for x in (query, key, value))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=padding.mask[:, None, None])
    return output.transpose(1, 2).flatten(0, 1)[padding.slots]


def rotary_embedding_2d(rows_columns: Tensor, vision_config: Any) -> tuple[Tensor, Tensor]:
    """cos and sin of the 2D rotary embedding, fp32 [patches, head_dim]: half of the channels by row, half by column.

    Args:
        rows_columns: int64 [patches, 2].
    """
    half = vision_config.hidden_size // vision_config.num_heads // 2
    theta = (getattr(vision_config, "rope_parameters", None) or {}).get("rope_theta", 10000.0)
    frequencies = theta ** -(torch.arange(0, half, 2, dtype=torch.float32, device=rows_columns.device) / half)
    angles = (rows_columns[..., None].float() * frequencies).flatten(1).repeat(1, 2)
    return angles.cos(), angles.sin()
