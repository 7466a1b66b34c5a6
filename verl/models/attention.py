"""Attention of a packed row: FlexAttention on CUDA, segment by segment elsewhere.

What sees what is worked out once per row and handed to transformers' language model, which passes it on to every layer
untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from verl.models.fused import compiled, rotate
from verl.models.packing import PackedBatch, Span
from verl.models.transfer import sent

BLOCK = 128
Segments = tuple[Span, ...]


class TextAttention(nn.Module):
    """Causal attention of one language layer over a packed row; holds the layer's own projections, so weights keep
    their names.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.o_proj,
        )
        self.head_dim: int = attention.head_dim

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: BlockMask | Segments,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """hidden_states [1, L, hidden_size]; position_embeddings: cos and sin [1, L, head_dim]; the mask is of
        `row_mask`.
        """
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for project in projections
        )
        cos, sin = position_embeddings
        query, key = rotate(query, key, cos[:, None], sin[:, None])
        output = attend_row(query, key, value, attention_mask)
        return self.o_proj(output.transpose(1, 2).flatten(2)), None


def attend_row(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask | Segments) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v under the mask; query [1, heads, L, head_dim], key and value [1, kv_heads, L,
    head_dim].
    """
    grouped = query.shape[1] != key.shape[1]
    if isinstance(mask, BlockMask):
        # without `dynamic`, the second length that is met makes the kernel's length symbolic, and nothing else;
        # `fullgraph` turns a fall-back to the uncompiled form, which would hold every score, into an error
        flex = _flex if torch.compiler.is_compiling() else compiled(_flex, fullgraph=True)
        return flex(query, key, value, mask, grouped)
    lengths = [span.end - span.start for span in mask]
    pieces = list(
        zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)))
    )  # split: slices' gradients are as long as the row
    prompts = {span.start: piece for span, piece in zip(mask, pieces) if span.prompt_start == span.prompt_end}
    outputs = [
        _attend_segment(piece, prompts[span.prompt_start] if span.prompt_end > span.prompt_start else None, grouped)
        for span, piece in zip(mask, pieces)
        if span.end > span.start
    ]
    return torch.cat(outputs, dim=2)


def _attend_segment(own: tuple[Tensor, ...], prompt: tuple[Tensor, ...] | None, grouped: bool) -> Tensor:
    """The output [1, heads, R, head_dim] of a segment of R tokens, which see themselves and the prompt before them: no
    pair in vain.

    Args:
        own, prompt: query, key and value of the segment and of its prompt; a prompt has none before it.
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


def row_mask(batch: PackedBatch) -> BlockMask | Segments:
    """What `attend_row` needs to know of a row: a BlockMask where it is on a GPU, else its segments."""
    return block_mask(batch.spans, batch.segments, batch.parents) if batch.segments.is_cuda else batch.spans


def block_mask(spans: Sequence[Span], segments: Tensor, parents: Tensor) -> BlockMask:
    """The row's BlockMask, from its intervals: no [L, L] is ever made.

    The pairs that a block of 128 x 128 allows are counted; a block with none is skipped, a block with all needs no mask
    inside.
    """

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((segments[query] == segments[key]) | (parents[query] == segments[key]))

    length = len(segments)
    pairs = count_pairs(spans, length)
    full = pairs == BLOCK * BLOCK
    lists = [sent(values, segments.device) for blocks in ((pairs > 0) & ~full, full) for values in _listed(blocks)]
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))


def count_pairs(spans: Sequence[Span], length: int) -> Tensor:
    """How many (query, key) pairs each block of the attention matrix allows, int64 [blocks, blocks]."""
    edges = BLOCK * torch.arange(-(-length // BLOCK) + 1)
    bounds = torch.tensor(spans).T[..., None]  # start, end, prompt_start, prompt_end, each [segments, 1]

    def overlap(start: Tensor, end: Tensor) -> Tensor:  # tokens of [start, end) in each block, [segments, blocks]
        return (
            (torch.minimum(edges[1:], end) - torch.maximum(edges[:-1], start)).clamp(min=0).double()
        )  # exact, and fast to multiply

    own, prompt = overlap(bounds[0], bounds[1]), overlap(bounds[2], bounds[3])
    triangles = (own * (own + 1) / 2).sum(0)
    return ((own.T @ own).tril(-1) + triangles.diag() + own.T @ prompt).long()


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """From bool [queries, keys] (in blocks): each query block's number of key blocks, int32 [1, 1, queries], and an
    order of the key blocks in which these come first, int32 [1, 1, queries, keys].
    """
    numbers = blocks.sum(-1, dtype=torch.int32)
    index = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return numbers[None, None], index[None, None]
