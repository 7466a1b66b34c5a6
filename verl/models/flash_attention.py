"""Attention of a packed sequence by FlashAttention 4: each segment by itself, then a group's responses over its prompt.

The two passes are merged by their log-sum-exp, so the keys of a prompt are neither copied for each response nor masked
inside a block. Both backward passes start from the merged output and log-sum-exp, so that their sum is the exact
gradient.

FlashAttention 4 is the package `flash-attn-4` (Dao-AILab/flash-attention, flash_attn/cute), for Hopper and Blackwell in
bf16 and fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verl.models.device_transfer import to_device
from verl.models.fused_kernels import compile_on_cuda

if TYPE_CHECKING:
    from verl.models.packing import Segment

OLDEST_CAPABILITY = (9, 0)  # Hopper


def is_installed() -> bool:
    """Whether the package is there; it is not imported, which takes seconds."""
    return find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None


@cache
def is_usable(device_index: int) -> bool:
    """Whether FlashAttention 4 is installed and made for this CUDA device."""
    return is_installed() and torch.cuda.get_device_capability(device_index) >= OLDEST_CAPABILITY


@dataclass(frozen=True)
class SharedPrefixLayout:
    """Where the segments of a packed sequence lie: the prompts of all groups, then their responses in the same order.

    Attributes:
        segments: int32 [segments + 1], cumulative lengths of all segments, padding included.
        prompts, responses: int32 [groups + 1], cumulative tokens of the groups' prompts and of all their responses.
        sizes: int64 [5] on the CPU: the longest segment, the most tokens of a group's responses, the longest prompt,
            tokens of all prompts, tokens of all responses. A tensor, so that compiled code does not depend on it.
    """

    segments: Tensor
    prompts: Tensor
    responses: Tensor
    sizes: Tensor

    def to(self, device: torch.device | str) -> SharedPrefixLayout:
        """The bounds on the device; the sizes stay."""
        segments, prompts, responses = to_device([self.segments, self.prompts, self.responses], device)
        return SharedPrefixLayout(segments, prompts, responses, self.sizes)

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> SharedPrefixLayout:
        """From the segments, in order; on the CPU.

        Raises:
            ValueError: a response stands before a prompt.
        """
        written: dict[int, int] = {}  # start of a prompt -> tokens of its responses
        for segment in segments:
            if not segment.is_prompt:
                written[segment.prompt_start] = written.get(segment.prompt_start, 0) + segment.length
        prompts = [segment for segment in segments if segment.is_prompt and segment.start in written]
        if [segment.start for segment in prompts] != _starts([segment.length for segment in prompts])[:-1]:
            raise ValueError("a packed sequence holds the prompts first, then the responses")
        counts = (
            [segment.length for segment in segments],
            [segment.length for segment in prompts],
            [written[segment.start] for segment in prompts],
        )
        longest = [max(lengths, default=0) for lengths in (counts[0], counts[2], counts[1])]
        bounds = tuple(torch.tensor(_starts(lengths), dtype=torch.int32) for lengths in counts)
        return cls(bounds[0], bounds[1], bounds[2], torch.tensor([*longest, sum(counts[1]), sum(counts[2])]))


def shared_prefix_attention(query: Tensor, key: Tensor, value: Tensor, layout: SharedPrefixLayout) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v of a packed sequence, differentiable.

    Args:
        query: bf16 or fp16 [L, heads, head_dim]; key, value: [L, kv_heads, head_dim].
        layout: on the same device, its `sizes` on the CPU.

    Returns:
        [L, heads, head_dim], contiguous.
    """
    bounds = (layout.segments, layout.prompts, layout.responses, layout.sizes)
    return _attention(query.contiguous(), key.contiguous(), value.contiguous(), *bounds)[0]


@torch.library.custom_op("verl::shared_prefix_attention", mutates_args=())
def _attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, prompts: Tensor, responses: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """The output [L, heads, head_dim] and its log-sum-exp, fp32 [heads, L]."""
    longest, most_written, longest_prompt, read, written = sizes.tolist()
    output, lse = _forward(query, key, value, segments, segments, longest, longest, causal=True)
    if written:
        tail = slice(read, read + written)
        over_prompt = _forward(
            query[tail], key[:read], value[:read], responses, prompts, most_written, longest_prompt, causal=False
        )
        output[tail], lse[:, tail] = _merge(output[tail], lse[:, tail], *over_prompt)
    return output, lse


@_attention.register_fake
def _(query: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    lse = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    return torch.empty_like(query, memory_format=torch.contiguous_format), lse


@torch.library.custom_op("verl::shared_prefix_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    segments: Tensor,
    prompts: Tensor,
    responses: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    longest, most_written, longest_prompt, read, written = sizes.tolist()
    saved, grad = (query, key, value, output), grad.contiguous()
    grads = _backward(*saved, grad, lse, segments, segments, longest, longest, causal=True)
    if written:
        tail = slice(read, read + written)
        saved = query[tail], key[:read], value[:read], output[tail]
        bounds = (responses, prompts, most_written, longest_prompt)
        over_prompt = _backward(*saved, grad[tail], lse[:, tail].contiguous(), *bounds, causal=False)
        for whole, part, where in zip(grads, over_prompt, (tail, slice(read), slice(read))):
            whole[where] += part
    return grads


@_attention_backward.register_fake
def _(_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    like = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in (query, key, value)]
    return like[0], like[1], like[2]


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output, *inputs[3:])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attention_backward(grad, *ctx.saved_tensors), None, None, None, None)


_attention.register_autograd(_differentiate, setup_context=_save)


@compile_on_cuda
def _merge(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the keys of both, from the softmax over each; outputs [N, heads, head_dim], lse [heads, N]."""
    lse = torch.logaddexp(first_lse, second_lse)
    weights = [(part - lse).exp().T[..., None] for part in (first_lse, second_lse)]
    return (first.float() * weights[0] + second.float() * weights[1]).to(first.dtype), lse


def _forward(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, key_ends: Tensor, most: int, most_keys: int, causal: bool
) -> tuple[Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_fwd

    bounds = {"cu_seqlens_q": ends, "cu_seqlens_k": key_ends, "max_seqlen_q": most, "max_seqlen_k": most_keys}
    output, lse, *_ = _flash_attn_fwd(query, key, value, **bounds, causal=causal, return_lse=True)
    return output, lse


def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    grad: Tensor,
    lse: Tensor,
    ends: Tensor,
    key_ends: Tensor,
    most: int,
    most_keys: int,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_bwd

    bounds = {"cu_seqlens_q": ends, "cu_seqlens_k": key_ends, "max_seqlen_q": most, "max_seqlen_k": most_keys}
    deterministic = torch.are_deterministic_algorithms_enabled()
    found = _flash_attn_bwd(query, key, value, output, grad, lse, causal=causal, **bounds, deterministic=deterministic)
    return found[0], found[1], found[2]


def _starts(lengths: Sequence[int]) -> list[int]:
    """[0, first, first + second, ...]."""
    return [0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()]
