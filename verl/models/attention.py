"""Attention of a packed row: FlexAttention on CUDA, an explicit mask elsewhere.

Registered with transformers under `SHARED_PREFIX`; the mask is handed to the language model ready-made, which it passes on untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface

from verl.models.packing import PackedBatch, Span

SHARED_PREFIX = "shared_prefix"
BLOCK = 128


def shared_prefix_attention(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: BlockMask | Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    Args:
        query: [1, heads, L, head_dim]; key, value: [1, kv_heads, L, head_dim].
        attention_mask: of `shared_prefix_mask`.

    Returns:
        [1, L, heads, head_dim], and no attention weights.
    """
    grouped = query.shape[1] != key.shape[1]
    if isinstance(attention_mask, BlockMask):
        flex = _flex if torch.compiler.is_compiling() else compiled_flex()
        output = flex(query, key, value, attention_mask, scaling, grouped)
    else:
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=grouped)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)


def _flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float, grouped: bool) -> Tensor:
    return flex_attention(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)  # type: ignore[return-value]


@cache
def compiled_flex() -> Callable[..., Tensor]:
    """FlexAttention compiled once for all lengths: the second length that is met makes the kernel's length symbolic.

    `fullgraph` turns a fall-back to the uncompiled form, which would hold every score, into an error. Gradients on or off, dtypes and
    rows of a single block each take entries of dynamo's cache, whose default of 8 is too few for a process that meets them all.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(_flex, fullgraph=True)


def shared_prefix_mask(batch: PackedBatch) -> BlockMask | Tensor:
    """The mask of a row on the row's device: a BlockMask on CUDA, else bool [1, 1, L, L], True where a query (row) sees a key (column)."""
    segments, parents = batch.segments, batch.parents
    if segments.is_cuda:
        return block_mask(batch.spans, segments, parents)
    causal = torch.ones(len(segments), len(segments), dtype=torch.bool, device=segments.device).tril()
    return (causal & ((segments[:, None] == segments) | (parents[:, None] == segments)))[None, None]


def block_mask(spans: Sequence[Span], segments: Tensor, parents: Tensor) -> BlockMask:
    """The row's BlockMask, from its intervals: no [L, L] is ever made.

    The pairs that a block of 128 x 128 allows are counted; a block with none is skipped, a block with all needs no mask inside.
    """

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((segments[query] == segments[key]) | (parents[query] == segments[key]))

    length = len(segments)
    pairs = count_pairs(spans, length)
    full = pairs == BLOCK * BLOCK
    partial_number, partial_index = _listed((pairs > 0) & ~full)
    full_number, full_index = _listed(full)
    mask = BlockMask.from_kv_blocks(
        partial_number, partial_index, full_number, full_index, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )
    return mask.to(segments.device)


def count_pairs(spans: Sequence[Span], length: int) -> Tensor:
    """How many (query, key) pairs each block of the attention matrix allows, int64 [blocks, blocks]."""
    blocks = -(-length // BLOCK)
    edges = BLOCK * torch.arange(blocks + 1)

    def overlap(start: int, end: int) -> Tensor:  # tokens of [start, end) in each block
        return (edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)).clamp(min=0)

    pairs = torch.zeros(blocks, blocks, dtype=torch.int64)
    for span in spans:
        own = overlap(span.start, span.end)
        pairs += torch.outer(own, own).tril(-1) + torch.diag(own * (own + 1) // 2)
        pairs += torch.outer(own, overlap(span.prompt_start, span.prompt_end))
    return pairs


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """From bool [queries, keys] (in blocks): each query block's number of key blocks, int32 [1, 1, queries], and an order of the
    key blocks in which these come first, int32 [1, 1, queries, keys]."""
    numbers = blocks.sum(-1, dtype=torch.int32)
    index = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return numbers[None, None], index[None, None]
