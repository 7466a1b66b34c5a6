"""How fast a fine-tuning step could be: its matrix products and attention timed alone at its shapes, and what it moves
through memory.

The products are the step's own, in its order, with nothing between them, at the rate that the device reaches on them.
Attention and the output layer are the step's own kernels. Element-wise work (norms, rotations, gates, residual and
gradient sums, AdamW) is counted in bytes, each tensor read and written once, at the bandwidth of a copy. Not in the
profile: copies of weights by FSDP2, transfers from the host, launches. So a step is at best a little above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.packing import seconds
from verl.models.attention import packed_attention, packed_mask
from verl.models.families import load_family
from verl.models.fused_kernels import ALIGNED_CHANNELS
from verl.models.log_probs import token_log_probs
from verl.models.packing import PackedBatch
from verl.models.vision_attention import PatchSegments, patch_attention

BYTES = 2  # of a half-precision number


@dataclass
class StepProfile:
    """Seconds of one step by part.

    Args:
        config: the model's `Qwen2_5_VLConfig`.
        rank: of the adapter.
        recomputed: whether the backward pass computes the forward pass again.
        device, dtype: of the computation.
    """

    config: Any
    rank: int
    recomputed: bool
    device: str
    dtype: torch.dtype
    parts: dict[str, float] = field(default_factory=dict)
    moved: float = 0.0  # bytes

    def add_batch(self, batch: PackedBatch) -> None:
        """Counts a micro-batch of the step."""
        text, tower = self.config.text_config, self.config.vision_config
        passes = 2 if self.recomputed else 1
        layers, tokens, patches = text.num_hidden_layers, batch.input_ids.shape[1], batch.pixel_values.shape[0]
        forward, backward = self._language(tokens)
        self._count("language products", passes * forward + backward)
        forward, backward = self._attention(batch)
        self._count("language attention", layers * (passes * forward + backward))
        self._count("output layer", self._output_layer(len(batch.labels)))
        self._count("vision products", self._vision(patches))
        plain = tower.depth - len(tower.fullatt_block_indexes)
        for segments, count in (
            (batch.vision_metadata.windows, plain),
            (batch.vision_metadata.images, len(tower.fullatt_block_indexes)),
        ):
            self._count("vision attention", count * self._segments(patches, segments))
        width, inner = text.hidden_size, text.intermediate_size
        kv = width // text.num_attention_heads * text.num_key_value_heads
        # numbers read and written; forward: 2 norms, rotations, 2 residual sums, gate; backward: also the sums of
        # gradients where a tensor has several readers (2 residuals; queries, keys and values; gate and up)
        there, back = 12 * width + 2 * kv + 3 * inner, 23 * width + 2 * kv + 5 * inner
        seen = 14 * tower.hidden_size + 3 * tower.intermediate_size
        self.moved += BYTES * (layers * tokens * (passes * there + back) + tower.depth * patches * seen)

    def finish(self, trained: int) -> None:
        """Turns bytes into seconds; `trained` weights take an AdamW step in fp32 (7 reads and writes)."""
        block = torch.empty(1 << (29 if self.device == "cuda" else 22), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(block)
        bandwidth = 2 * block.numel() / seconds(lambda: target.copy_(block))
        self.parts["memory"] = (self.moved + 7 * 4 * trained) / bandwidth
        print(f"  a copy moves {bandwidth / 1e12:.2f} TB/s", flush=True)

    def _count(self, part: str, spent: float) -> None:
        self.parts[part] = self.parts.get(part, 0.0) + spent

    def _new(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def _language(self, tokens: int) -> tuple[float, float]:
        """Seconds of all layers' products, adapters included: forward, and backward to activations and adapters."""
        text, rank = self.config.text_config, self.rank
        width, inner = text.hidden_size, text.intermediate_size
        kv = width // text.num_attention_heads * text.num_key_value_heads
        shapes = [
            (width, width),
            (width, kv),
            (width, kv),
            (width, width),
            (width, inner),
            (width, inner),
            (inner, width),
        ]
        linears = [(self._new(o, i), self._new(rank, i), self._new(o, rank)) for i, o in shapes]
        data = {size: self._new(tokens, size) for size in (width, kv, inner)}

        def forward() -> None:
            for _ in range(text.num_hidden_layers):
                for weight, down, up in linears:
                    x = data[weight.shape[1]]
                    F.linear(x, weight).addmm_(x @ down.T, up.T)

        def backward() -> None:
            for _ in range(text.num_hidden_layers):
                for weight, down, up in linears:
                    x, grad = data[weight.shape[1]], data[weight.shape[0]]
                    middle = grad @ up
                    (grad @ weight).addmm_(middle, down)
                    middle.T @ x, grad.T @ middle

        return seconds(forward, 1), seconds(backward, 1)

    def _attention(self, batch: PackedBatch) -> tuple[float, float]:
        """Seconds of one layer's attention over a packed sequence, forward and backward."""
        text = self.config.text_config
        heads = (text.num_attention_heads, text.num_key_value_heads, text.num_key_value_heads)
        size, length = text.hidden_size // text.num_attention_heads, batch.input_ids.shape[1]
        tensors = [self._new(length, count, size).requires_grad_() for count in heads]
        query, key, value = tensors
        mask, direction = packed_mask(batch, query.dtype), torch.randn_like(query)

        def both() -> None:  # a compiled backward pass cannot be run twice over one forward pass
            torch.autograd.grad(packed_attention(query, key, value, mask), tensors, direction)

        forward = seconds(lambda: packed_attention(query, key, value, mask))
        return forward, seconds(both) - forward

    def _output_layer(self, labels: int) -> float:
        hidden = self._new(labels, self.config.text_config.hidden_size).requires_grad_()
        weight = self._new(self.config.text_config.vocab_size, hidden.shape[1])
        numbers = torch.zeros(labels, dtype=torch.int64, device=self.device)
        return seconds(lambda: token_log_probs(hidden, weight, numbers).log_probs.sum().backward(), 1)

    @torch.no_grad()
    def _vision(self, patches: int) -> float:
        tower = self.config.vision_config
        width, merged = tower.hidden_size, tower.hidden_size * tower.spatial_merge_size**2
        inner = tower.intermediate_size + (-tower.intermediate_size % ALIGNED_CHANNELS if self.device == "cuda" else 0)
        shapes = [(width, 3 * width), (width, width), (width, inner), (width, inner), (inner, width)]
        weights = [self._new(o, i) for i, o in shapes]
        data = {size: self._new(patches, size) for size in (width, inner)}
        units, pixels = patches * width // merged, tower.in_channels * tower.temporal_patch_size * tower.patch_size**2
        ends = [
            (merged, merged, units),
            (merged, tower.out_hidden_size, units),
            (pixels, width, patches),
        ]  # the merger, the embedding
        outer = [(self._new(o, i), self._new(count, i)) for i, o, count in ends]

        def run() -> None:
            for _ in range(tower.depth):
                for weight in weights:
                    F.linear(data[weight.shape[1]], weight)
            for weight, x in outer:
                F.linear(x, weight)

        return seconds(run, 1)

    @torch.no_grad()
    def _segments(self, patches: int, segments: PatchSegments) -> float:
        tower = self.config.vision_config
        query, key, value = self._new(3, patches, tower.num_heads, tower.hidden_size // tower.num_heads)
        return seconds(lambda: patch_attention(query, key, value, segments))


def useful_flops(config: Any, rank: int, batches: Sequence[PackedBatch]) -> float:
    """What the mathematics of a step needs: language forward and backward to activations (its weights are frozen),
    adapters forward and both ways back, vision forward; recomputation aside.
    """
    flops, text = load_family(config).flops(), config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    kv = width // text.num_attention_heads * text.num_key_value_heads
    adapter = 2.0 * rank * text.num_hidden_layers * (2 * 2 * width + 2 * (width + kv) + 3 * (width + inner))
    total = 0.0
    for batch in batches:
        responses = [each for each in batch.segments if each.prompt_end > each.prompt_start]
        for response in responses:
            tokens = response.prompt_end - response.prompt_start, response.end - response.start
            total += 2 * flops.group_flops(tokens[0], [tokens[1]], []) + 3 * adapter * sum(tokens)
        total += flops.per_patch * batch.pixel_values.shape[0]
    return total
