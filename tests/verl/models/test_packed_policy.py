"""A packed sequence against plain transformers, one padded sequence at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.verl.models.tiny_qwen import IMAGE, alone, random_group, tiny_model
from verl.models.packing import TokenizedGroup, first_fit_decreasing, pack_groups
from verl.models.policy_model import PolicyModel
from verl.models.qwen2_5_vl import Qwen2_5VL

SQUARE, WIDE, TALL = (1, 8, 8), (1, 6, 10), (1, 10, 4)
CASES = {
    "one group of ragged responses": [random_group([7, 1, 12, 5], [SQUARE, WIDE], 1)],
    "a group of one": [random_group([6], [TALL], 2)],
    "several groups, images of several sizes": [
        random_group([4, 9], [SQUARE, TALL, WIDE], 3),
        random_group([3, 3, 8], [WIDE], 4),
        random_group([11], [SQUARE, SQUARE], 5),
    ],
    "with and without images": [random_group([4, 2], [], 6), random_group([5, 6], [TALL], 7)],
    "no image at all": [random_group([4, 2], [], 8)],
}


def compare(groups: list[TokenizedGroup], device: str, model: Any = None, compiled: str | None = None) -> None:
    plain = (model or tiny_model()).to(device)
    policy = PolicyModel(copy.deepcopy(plain))
    policy.enable_gradient_checkpointing()
    if compiled is not None:
        policy.compile_layers(compiled)
    policy.train()
    lengths = [len(r) for g in groups for r in g.response_ids]
    weights = torch.randn(sum(lengths), generator=torch.Generator().manual_seed(9)).to(device)

    expected = torch.cat([scores for group in groups for scores in alone(plain, group, pad_to=group.tokens + 3)])
    (expected * weights).sum().backward()
    batch = pack_groups(groups, policy.family).to(device)
    found = policy(batch).log_probs
    (found * weights).sum().backward()

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)
    for (name, theirs), ours in zip(plain.named_parameters(), policy.model.parameters()):
        if theirs.grad is None:
            assert ours.grad is None or not ours.grad.any(), name
            continue
        assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm(), name


@pytest.mark.parametrize("case", CASES)
def test_packed_sequence_equals_single_sequences(case: str) -> None:
    compare(CASES[case], "cpu")


def test_untied_output_layer() -> None:
    compare(CASES["a group of one"], "cpu", tiny_model(tied=False))


@pytest.mark.parametrize("case", ["a group of one", "several groups, images of several sizes"])
def test_compiled_layers_give_the_same(case: str) -> None:
    """As one graph a layer, which is what costs the host least; `aot_eager` is the compiler without its kernels."""
    compare(CASES[case], "cpu", compiled="aot_eager")


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [None, "inductor"])
@pytest.mark.parametrize("case", CASES)
def test_packed_sequence_equals_single_sequences_on_cuda(case: str, compiled: str | None) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    compare(CASES[case], "cuda", compiled=compiled)


@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_any_packing_gives_the_same(budget: int) -> None:
    groups = [random_group([4, 9], [SQUARE], 3), random_group([3, 3, 8], [WIDE], 4), random_group([11], [TALL], 5)]
    policy = PolicyModel(tiny_model())
    with torch.no_grad():
        whole = policy(pack_groups(groups, policy.family)).log_probs.split([13, 14, 11])
        for members in first_fit_decreasing([group.tokens for group in groups], budget):
            batch = pack_groups([groups[i] for i in members], policy.family)
            torch.testing.assert_close(
                policy(batch).log_probs, torch.cat([whole[i] for i in members]), atol=5e-6, rtol=0.0
            )


def test_an_image_token_in_a_response_is_text() -> None:
    group = random_group([6], [SQUARE], 2)
    group.response_ids[0][3] = IMAGE
    policy = PolicyModel(tiny_model())
    with torch.no_grad():
        assert policy(pack_groups([group], policy.family)).log_probs.isfinite().all()


def test_checkpointing_reaches_every_block() -> None:
    policy = PolicyModel(tiny_model())
    policy.enable_gradient_checkpointing()
    assert all(block.gradient_checkpointing for block in policy.blocks())


def test_a_batch_without_responses_joins_the_pass() -> None:
    policy = PolicyModel(tiny_model())
    scores = policy(pack_groups([TokenizedGroup(torch.tensor([1]), [])], policy.family), entropy=True)
    (scores.log_probs.sum() + scores.entropy.sum()).backward()
    assert scores.log_probs.shape == (0,)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in policy.parameters())


class Deepstack(Qwen2_5VL):
    """A family that adds to its visual tokens once more, after the first language layer."""

    def encode_images(
        self, model: Any, pixel_values: torch.Tensor, plan: Any
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens, _ = super().encode_images(model, pixel_values, plan)
        return tokens, [0.5 * tokens]


def test_a_family_may_add_to_its_visual_tokens_between_language_layers() -> None:
    policy, plain = PolicyModel(tiny_model()), PolicyModel(tiny_model())
    policy.family = Deepstack(policy.config)
    batch = pack_groups([random_group([4, 9], [SQUARE, TALL], 3), random_group([3], [], 4)], policy.family)
    tokens, _ = plain.family.encode_images(plain.model, batch.pixel_values, batch.vision_metadata)
    layer = plain.family.language_model(plain.model).layers[0]
    before = plain(batch).log_probs
    layer.register_forward_hook(lambda _, __, hidden: hidden.index_add(1, batch.image_positions, 0.5 * tokens[None]))
    torch.testing.assert_close(policy(batch).log_probs, plain(batch).log_probs)
    assert (policy(batch).log_probs - before).abs().max() > 1e-3
    policy(pack_groups([random_group([4], [], 6)], policy.family)).log_probs.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())  # FSDP2 waits for all of them


@pytest.mark.gpu
def test_half_precision_on_cuda() -> None:
    """The kernels of a real run: FlexAttention, variable-length vision attention, fp32 sums of bf16 logits; lengths
    that change.
    """
    exact = PolicyModel(tiny_model()).cuda()
    policy = PolicyModel(tiny_model()).to("cuda", torch.bfloat16)
    policy.enable_gradient_checkpointing()
    policy.train()
    for groups in CASES.values():
        batch = pack_groups(groups, policy.family).to("cuda")
        results = []
        for each in (policy, exact):
            each.zero_grad()
            scores = each(batch, temperature=0.9, entropy=True)
            (scores.log_probs.mean() + scores.entropy.mean()).backward()
            results.append((scores, each.model.lm_head.weight.grad.float()))
        (half, half_grad), (full, full_grad) = results
        assert (half.log_probs - full.log_probs).abs().mean() < 0.05
        assert (half.entropy - full.entropy).abs().mean() < 0.05
        assert (half_grad - full_grad).norm() < 0.2 * full_grad.norm()
