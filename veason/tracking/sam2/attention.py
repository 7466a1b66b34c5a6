"""SAM 2's memory attention over a batch of objects, from the weights of sam2's own module, arranged to do less.

The same sums as `sam2.modeling.memory_attention.MemoryAttention`, except that
- what the first layer does before it looks at any memory depends on the frame alone, so it is computed once a frame and
    not once an object;
- the rotary embedding is a real product with tables made once a step (sam2: complex numbers, anew in each of the
    layers).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Table = tuple[Tensor, Tensor]  # cosines and sines, float32 [tokens, channels per head / 2]


class MemoryAttention(nn.Module):
    """Tokens of frames [F, L, C] and memories of objects [N, K, M] to tokens that know the memories [N, L, C].

    Args:
        module: sam2's memory attention; its weights are shared, not copied.
        position: float32 [L, C], where the tokens are.
    """

    module: Any  # sam2 does not say what its modules have

    def __init__(self, module: Any, position: Tensor):
        super().__init__()
        self.module, self.position = module, position
        self.table = rotation_table(module, len(position), position.device)

    def look(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer up to its memories: (tokens [F, L, C], rotated queries [F, heads, L, C / heads]) of frames
        [F, L, C].
        """
        if self.module.pos_enc_at_input:
            tokens = tokens + 0.1 * self.position
        return self._look(self.module.layers[0], tokens)

    def recall(self, tokens: Tensor, queries: Tensor, memory: Tensor, where: Tensor, keys: Table) -> Tensor:
        """The rest, per object.

        Args:
            tokens, queries: `look`'s, of each object's frame.
            memory, where: [N, K, M], the memories and their position in space and time.
            keys: `key_table`'s, for the K memories.
        """
        keyed = {True: memory + where, False: memory}
        for number, layer in enumerate(self.module.layers):
            if number:
                tokens, queries = self._look(layer, tokens)
            key = rotate(
                heads(layer.cross_attn_image, layer.cross_attn_image.k_proj(keyed[layer.pos_enc_at_cross_attn_keys])),
                keys,
            )
            tokens = tokens + self._attend(layer.cross_attn_image, queries, key, memory)
            tokens = tokens + layer.linear2(layer.activation(layer.linear1(layer.norm3(tokens))))
        return self.module.norm(tokens)

    def _look(self, layer: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        attention, normed = layer.self_attn, layer.norm1(tokens)
        placed = normed + self.position if layer.pos_enc_at_attn else normed
        query = rotate(heads(attention, attention.q_proj(placed)), self.table)
        key = rotate(heads(attention, attention.k_proj(placed)), self.table)
        mixed = F.scaled_dot_product_attention(query, key, heads(attention, attention.v_proj(normed)))
        tokens = tokens + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        normed = layer.norm2(tokens)
        placed = normed + self.position if layer.pos_enc_at_cross_attn_queries else normed
        return tokens, rotate(heads(layer.cross_attn_image, layer.cross_attn_image.q_proj(placed)), self.table)

    def _attend(self, attention: Any, query: Tensor, key: Tensor, memory: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, heads(attention, attention.v_proj(memory)))
        return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def heads(attention: Any, projected: Tensor) -> Tensor:
    """[N, L, C] -> [N, heads, L, C / heads]"""
    return projected.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def rotate(x: Tensor, table: Table) -> Tensor:
    """Rotate pairs of neighbouring channels of [N, heads, L, C] by the table's angles, in float32."""
    cos, sin = table
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rotation_table(module: Any, tokens: int, device: torch.device) -> Table:
    """The rotations of a frame's tokens, from sam2's own axial frequencies."""
    side = round(tokens**0.5)
    angles = module.layers[0].self_attn.compute_cis(end_x=side, end_y=side).to(device)
    return angles.real.contiguous(), angles.imag.contiguous()


def key_table(table: Table, maps: int, pointers: int) -> Table:
    """The rotations of `maps` maps of tokens, then of `pointers` tokens that are not rotated."""
    cos, sin = table
    still = cos.new_ones(pointers, cos.shape[1])
    return torch.cat((cos.repeat(maps, 1), still)), torch.cat((sin.repeat(maps, 1), torch.zeros_like(still)))
