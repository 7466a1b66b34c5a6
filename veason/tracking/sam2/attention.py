"""SAM 2's memory attention for a batch of objects, with the weights of sam2's own module.

Computes what `sam2.modeling.memory_attention.MemoryAttention` computes, with two differences in how:
- the first layer's self-attention depends on the frame alone, so it is computed once per frame, not once per object;
- rotary embeddings are real products with tables made once per step (sam2: complex numbers, anew in each layer).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RotaryTable = tuple[Tensor, Tensor]  # cosines and sines, float32 [tokens, channels per head / 2]


class MemoryAttention(nn.Module):
    """Image tokens [F, L, C] of frames, conditioned on the memories [N, K, M] of objects, as tokens [N, L, C].

    Args:
        module: sam2's memory attention; its weights are shared, not copied.
        position: float32 [L, C], the positional encoding of the tokens.
    """

    module: Any  # sam2 does not type its modules

    def __init__(self, module: Any, position: Tensor):
        super().__init__()
        self.module, self.position = module, position
        self.table = rotary_table(module, len(position), position.device)

    def self_attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer up to its cross-attention, per frame.

        Args:
            tokens: [F, L, C].

        Returns:
            Tokens [F, L, C] and rotated queries [F, heads, L, C / heads] of the cross-attention.
        """
        if self.module.pos_enc_at_input:
            tokens = tokens + 0.1 * self.position
        return self._self_attention(self.module.layers[0], tokens)

    def attend_memory(
        self, tokens: Tensor, queries: Tensor, memory: Tensor, memory_position: Tensor, table: RotaryTable
    ) -> Tensor:
        """Everything from the first cross-attention on, per object: [N, L, C].

        Args:
            tokens, queries: from `self_attend`, of each object's frame.
            memory, memory_position: [N, K, M], the memories and their encoding of space and time.
            table: `memory_rotary_table` for the K memories.
        """
        keyed = {True: memory + memory_position, False: memory}
        for number, layer in enumerate(self.module.layers):
            if number:
                tokens, queries = self._self_attention(layer, tokens)
            attention = layer.cross_attn_image
            projected = attention.k_proj(keyed[layer.pos_enc_at_cross_attn_keys])
            key = apply_rotary(split_heads(attention, projected), table)
            tokens = tokens + self._cross_attention(attention, queries, key, memory)
            tokens = tokens + layer.linear2(layer.activation(layer.linear1(layer.norm3(tokens))))
        return self.module.norm(tokens)

    def _self_attention(self, layer: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        attention, normed = layer.self_attn, layer.norm1(tokens)
        placed = normed + self.position if layer.pos_enc_at_attn else normed
        query = apply_rotary(split_heads(attention, attention.q_proj(placed)), self.table)
        key = apply_rotary(split_heads(attention, attention.k_proj(placed)), self.table)
        mixed = F.scaled_dot_product_attention(query, key, split_heads(attention, attention.v_proj(normed)))
        tokens = tokens + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        normed = layer.norm2(tokens)
        placed = normed + self.position if layer.pos_enc_at_cross_attn_queries else normed
        cross = layer.cross_attn_image
        return tokens, apply_rotary(split_heads(cross, cross.q_proj(placed)), self.table)

    def _cross_attention(self, attention: Any, query: Tensor, key: Tensor, memory: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, split_heads(attention, attention.v_proj(memory)))
        return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def split_heads(attention: Any, projected: Tensor) -> Tensor:
    """[N, L, C] -> [N, heads, L, C / heads]."""
    return projected.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def apply_rotary(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate pairs of neighbouring channels of [N, heads, L, C] by the table's angles, in float32."""
    cos, sin = table
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rotary_table(module: Any, tokens: int, device: torch.device) -> RotaryTable:
    """The rotations of a frame's tokens, from sam2's own axial frequencies."""
    side = round(tokens**0.5)
    angles = module.layers[0].self_attn.compute_cis(end_x=side, end_y=side).to(device)
    return angles.real.contiguous(), angles.imag.contiguous()


def memory_rotary_table(table: RotaryTable, maps: int, pointers: int) -> RotaryTable:
    """The rotations of `maps` memory maps, then of `pointers` object-pointer tokens, which are not rotated."""
    cos, sin = table
    still = cos.new_ones(pointers, cos.shape[1])
    return torch.cat((cos.repeat(maps, 1), still)), torch.cat((sin.repeat(maps, 1), torch.zeros_like(still)))
