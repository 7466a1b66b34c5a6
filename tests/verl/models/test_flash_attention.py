"""FlashAttention 4's two passes over a packed sequence: with plain stand-ins for its kernels, and its own on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.verl.models.test_model_parts import dense_attention
from tests.verl.models.tiny_qwen import FAMILY, random_group
from verl.models import flash_attention
from verl.models.attention import block_mask, packed_attention, packed_mask
from verl.models.flash_attention import SharedPrefixLayout, shared_prefix_attention
from verl.models.packing import PackedBatch, Segment, pack_groups

HEADS = (4, 2, 2)  # of query, key, value


def ragged_batch(multiple: int = 16) -> PackedBatch:
    groups = [
        random_group([70, 1, 0, 33], [(1, 8, 8)], 2, text=60),
        random_group([40], [], 3),
        random_group([5, 9], [], 4, text=31),
    ]
    return pack_groups(groups, FAMILY, multiple=multiple)


def plain_forward(query, key, value, ends, key_ends, most, most_keys, causal):
    """Variable-length attention and its log-sum-exp as FlashAttention defines them, run by run."""
    output, lse = torch.empty_like(query), torch.empty(query.shape[1], len(query))
    assert (most, most_keys) == (int(ends.diff().max()), int(key_ends.diff().max()))
    for run in range(len(ends) - 1):
        own, keys = slice(*ends[run : run + 2].tolist()), slice(*key_ends[run : run + 2].tolist())
        scores = run_scores(query[own], key[keys], causal)
        lse[:, own] = scores.logsumexp(-1)
        output[own] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), grouped(value[keys], query))
    return output, lse


def plain_backward(query, key, value, output, grad, lse, ends, key_ends, most, most_keys, causal):
    """The gradient for probabilities exp(score - lse), whatever lse belongs to."""
    assert (most, most_keys) == (int(ends.diff().max()), int(key_ends.diff().max()))
    grads = [torch.zeros_like(each) for each in (query, key, value)]
    scale = query.shape[-1] ** -0.5
    for run in range(len(ends) - 1):
        own, keys = slice(*ends[run : run + 2].tolist()), slice(*key_ends[run : run + 2].tolist())
        weights = (run_scores(query[own], key[keys], causal) - lse[:, own, None]).exp()
        from_values = torch.einsum("qhd,khd->hqk", grad[own], grouped(value[keys], query))
        delta = (grad[own] * output[own]).sum(-1).T[..., None]
        from_scores = weights * (from_values - delta) * scale
        grads[0][own] = torch.einsum("hqk,khd->qhd", from_scores, grouped(key[keys], query))
        for number, (left, right) in enumerate(((from_scores, query[own]), (weights, grad[own])), start=1):
            per_head = torch.einsum("hqk,qhd->khd", left, right)
            grads[number][keys] = per_head.unflatten(1, (key.shape[1], -1)).sum(2)
    return tuple(grads)


def run_scores(query: torch.Tensor, key: torch.Tensor, causal: bool) -> torch.Tensor:
    scores = torch.einsum("qhd,khd->hqk", query, grouped(key, query)) * query.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 + scores.shape[2] - scores.shape[1])
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores


def grouped(key: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    return key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)


def test_two_passes_equal_the_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_attention, "_forward", plain_forward)
    monkeypatch.setattr(flash_attention, "_backward", plain_backward)
    torch.manual_seed(0)
    batch = ragged_batch()
    tensors = [torch.randn(len(batch.segment_ids), heads, 16, requires_grad=True) for heads in HEADS]
    expected = dense_attention(*tensors, batch)
    found = shared_prefix_attention(*tensors, SharedPrefixLayout.of(batch.segments))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(expected)
    gradients = [torch.autograd.grad((output * direction).sum(), tensors) for output in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_layout_of_prompts_and_responses() -> None:
    segments = [
        Segment(0, 4, 0, 0),
        Segment(4, 7, 4, 4),
        Segment(7, 9, 0, 4),
        Segment(9, 12, 0, 4),
        Segment(12, 17, 4, 7),
        Segment(17, 20, 17, 17),
    ]
    layout = SharedPrefixLayout.of(segments)
    assert layout.segments.tolist() == [0, 4, 7, 9, 12, 17, 20]
    assert layout.prompts.tolist() == [0, 4, 7] and layout.responses.tolist() == [0, 5, 10]
    assert layout.sizes.tolist() == [5, 5, 4, 7, 10]
    with pytest.raises(ValueError, match="prompts first"):
        SharedPrefixLayout.of([Segment(0, 4, 0, 0), Segment(4, 7, 0, 4), Segment(7, 9, 7, 7), Segment(9, 12, 7, 9)])


def test_what_cannot_be_used_is_refused() -> None:
    batch = ragged_batch()
    assert packed_mask(batch, torch.bfloat16) == batch.segments
    with pytest.raises(ValueError, match="flash_attention_4 needs"):
        packed_mask(batch, torch.bfloat16, "flash_attention_4")


@pytest.mark.gpu
def test_flash_attention_equals_flex_attention() -> None:
    """In bf16, at lengths that are no multiples of a block; both against fp32."""
    if not flash_attention.is_usable(0):
        pytest.fail("flash-attn-4 is not installed, or this GPU is older than Hopper")
    torch.manual_seed(0)
    batch = ragged_batch(128)
    moved = batch.to("cuda")
    exact = [torch.randn(len(batch.segment_ids), heads, 128, device="cuda", requires_grad=True) for heads in (16, 2, 2)]
    segments = packed_attention(*exact, batch.segments)
    direction = torch.randn_like(segments)
    expected = [segments, *torch.autograd.grad((segments * direction).sum(), exact)]
    errors = []
    for mask in (
        packed_mask(moved, torch.bfloat16, "flash_attention_4"),
        block_mask(batch.segments, moved.segment_ids, moved.prompt_segment_ids),
    ):
        half = [each.detach().bfloat16().requires_grad_() for each in exact]
        output = packed_attention(*half, mask)
        found = [output, *torch.autograd.grad((output * direction.bfloat16()).sum(), half)]
        errors.append([F.mse_loss(a.float(), b).sqrt() / b.std() for a, b in zip(found, expected)])
    for flash, flex in zip(*errors):
        assert flash < 1e-2 and flash < 1.5 * flex
