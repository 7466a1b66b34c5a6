"""Attention of a packed sequence: FlashAttention 4 or FlexAttention on CUDA, segment by segment elsewhere.

The mask is made once per packed sequence and handed to every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from verl.models import flash_attention
from verl.models.device_transfer import to_device
from verl.models.flash_attention import SharedPrefixLayout, shared_prefix_attention
from verl.models.fused_kernels import GatedMLP, apply_rotary, compiled, fused_rms_norm
from verl.models.packing import PackedBatch, Segment

BLOCK = 128
Segments = tuple[Segment, ...]
PackedMask: TypeAlias = SharedPrefixLayout | BlockMask | Segments


class PackedAttention(nn.Module):
    """Causal attention of one language layer over a packed sequence. It holds the layer's own projections and, where it
    has them, its norms of queries and keys, so that weights keep their names.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.o_proj = attention.v_proj, attention.o_proj
        self.q_norm = fused_rms_norm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.k_norm = fused_rms_norm(attention.k_norm) if hasattr(attention, "k_norm") else None
        self.head_dim: int = attention.head_dim

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: PackedMask,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """hidden_states [1, L, hidden_size]; position_embeddings: cos and sin [1, L, head_dim]; mask: `packed_mask`."""
        query, key, value = (
            project(hidden_states[0]).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        cos, sin = (each[0, :, None] for each in position_embeddings)
        query, key = apply_rotary(query, key, cos, sin)
        return self.o_proj(packed_attention(query, key, value, attention_mask).flatten(1))[None], None


def replace_language_layers(language: Any) -> None:
    """Puts `PackedAttention`, `GatedMLP` and fused norms into every layer of a language model of Qwen's layout."""
    for layer in language.layers:
        layer.self_attn, layer.mlp = PackedAttention(layer.self_attn), GatedMLP(layer.mlp)
        layer.input_layernorm = fused_rms_norm(layer.input_layernorm)
        layer.post_attention_layernorm = fused_rms_norm(layer.post_attention_layernorm)
    language.norm = fused_rms_norm(language.norm)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, mask: PackedMask) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v under the mask; query [L, heads, head_dim], key and value with kv_heads."""
    if isinstance(mask, SharedPrefixLayout):
        return shared_prefix_attention(query, key, value, mask)
    query, key, value = (each.transpose(0, 1)[None] for each in (query, key, value))
    attend = _flex_attention if isinstance(mask, BlockMask) else _segment_attention
    return attend(query, key, value, mask)[0].transpose(0, 1)  # type: ignore[arg-type]


def _flex_attention(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    # without `dynamic`, the second length that is met makes the kernel's length symbolic, and nothing else;
    # `fullgraph` turns a fall-back to the uncompiled form, which would hold every score, into an error
    flex = _flex if torch.compiler.is_compiling() else compiled(_flex, fullgraph=True)
    return flex(query, key, value, mask, query.shape[1] != key.shape[1])


def _segment_attention(query: Tensor, key: Tensor, value: Tensor, mask: Segments) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    lengths = [segment.length for segment in mask]
    # split, not slices: the gradient of a slice is as long as the whole sequence
    pieces = list(zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value))))
    prompts = {segment.start: piece for segment, piece in zip(mask, pieces) if segment.is_prompt}
    outputs = [
        _attend_segment(piece, prompts[segment.prompt_start] if not segment.is_prompt else None, grouped)
        for segment, piece in zip(mask, pieces)
        if segment.length
    ]
    return torch.cat(outputs, dim=2)


def _attend_segment(own: tuple[Tensor, ...], prompt: tuple[Tensor, ...] | None, grouped: bool) -> Tensor:
    """The output [1, heads, R, head_dim] of a segment of R tokens, which see themselves and the prompt before them.

    Args:
        own, prompt: query, key and value of the segment and of its prompt; None for a prompt itself.
    """
    query, key, value = own
    if prompt is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
    _, *seen = prompt
    key, value = (torch.cat(both, dim=2) for both in zip(seen, (key, value)))
    count, total = query.shape[2], key.shape[2]
    allowed = torch.ones(count, total, dtype=torch.bool, device=query.device).tril(total - count)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, enable_gqa=grouped)


def _flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, grouped: bool) -> Tensor:
    return flex_attention(query, key, value, block_mask=mask, enable_gqa=grouped)  # type: ignore[return-value]


def packed_mask(batch: PackedBatch, dtype: torch.dtype, implementation: str = "auto") -> PackedMask:
    """What `packed_attention` needs, on the batch's device.

    Args:
        dtype: of the computation.
        implementation: worker.actor.model.attn_implementation. "auto" is FlashAttention 4 in half precision where it is
            installed and the GPU has it, else FlexAttention on a GPU, else PyTorch's attention segment by segment
            ("sdpa").

    Raises:
        ValueError: FlashAttention 4 is asked for and cannot be used.
    """
    device = batch.segment_ids.device
    half = dtype in (torch.bfloat16, torch.float16)
    flash = device.type == "cuda" and half and flash_attention.is_usable(device.index or 0)
    if implementation == "flash_attention_4" and not flash:
        raise ValueError(
            f"flash_attention_4 needs flash-attn-4, a Hopper GPU or newer and bf16; this is {device}, {dtype}"
        )
    if flash and implementation in ("auto", "flash_attention_4"):
        return SharedPrefixLayout.of(batch.segments).to(device)
    if device.type == "cuda" and implementation != "sdpa":
        return block_mask(batch.segments, batch.segment_ids, batch.prompt_segment_ids)
    return batch.segments


def block_mask(segments: Sequence[Segment], segment_ids: Tensor, prompt_segment_ids: Tensor) -> BlockMask:
    """The BlockMask of a packed sequence, from its segments: no [L, L] is ever made.

    The pairs that a block of 128 x 128 allows are counted; a block with none is skipped, a block with all needs no mask
    inside.
    """

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (
            (segment_ids[query] == segment_ids[key]) | (prompt_segment_ids[query] == segment_ids[key])
        )

    length = len(segment_ids)
    pairs = count_pairs(segments, length)
    full = pairs == BLOCK * BLOCK
    partial = (pairs > 0) & ~full
    lists = to_device([*_kv_blocks(partial), *_kv_blocks(full)], segment_ids.device)
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))


def count_pairs(segments: Sequence[Segment], length: int) -> Tensor:
    """How many (query, key) pairs each block of the attention matrix allows, int64 [blocks, blocks]."""
    edges = BLOCK * torch.arange(-(-length // BLOCK) + 1)
    bounds = torch.tensor(segments).T[..., None]  # start, end, prompt_start, prompt_end, each [segments, 1]

    def overlap(start: Tensor, end: Tensor) -> Tensor:  # tokens of [start, end) in each block, [segments, blocks]
        tokens = torch.minimum(edges[1:], end) - torch.maximum(edges[:-1], start)
        return tokens.clamp(min=0).double()  # exact, and fast to multiply

    own, prompt = overlap(bounds[0], bounds[1]), overlap(bounds[2], bounds[3])
    triangles = (own * (own + 1) / 2).sum(0)
    return ((own.T @ own).tril(-1) + triangles.diag() + own.T @ prompt).long()


def _kv_blocks(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """From bool [query blocks, key blocks]: each query block's number of key blocks, int32 [1, 1, queries], and an
    order of the key blocks in which these come first, int32 [1, 1, queries, keys].
    """
    numbers = blocks.sum(-1, dtype=torch.int32)
    index = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return numbers[None, None], index[None, None]
