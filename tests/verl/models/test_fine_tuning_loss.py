"""The loss of LoRA fine-tuning and its gradient: packed sequences against peft and transformers on one padded batch."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tests.verl.models.tiny_qwen import IMAGE, LORA_LANGUAGE_AND_VISION, random_group, tiny_model
from verl.models.lora import ADAPTER, LoraLinear, LoraOptions, adapter_weights, add_lora
from verl.models.packing import first_fit_decreasing, pack_groups
from verl.models.policy_model import PolicyModel

EXAMPLES = [
    random_group([9], [(1, 8, 8)], 1),
    random_group([4], [(1, 6, 10), (1, 10, 4)], 2),
    random_group([14], [(1, 4, 4)], 3),
]
OPTIONS = LoraOptions(rank=4, alpha=8, target=LORA_LANGUAGE_AND_VISION)


@pytest.fixture(scope="module")
def padded() -> tuple[dict[str, Tensor], float, dict[str, Tensor]]:
    """An adapter, and transformers' loss and gradient with it; labels are the answers alone."""
    model = get_peft_model(tiny_model(), OPTIONS.peft_config()).eval()
    torch.manual_seed(5)
    adapter = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for parameter in adapter.values():
            parameter.normal_(std=0.1)
    rows = [torch.cat([group.prompt_ids, group.response_ids[0]]) for group in EXAMPLES]
    labels = [torch.cat([torch.full_like(group.prompt_ids, -100), group.response_ids[0]]) for group in EXAMPLES]
    ids = pad_sequence(rows, batch_first=True)
    loss = model(
        input_ids=ids,
        attention_mask=pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        mm_token_type_ids=(ids == IMAGE).int(),
        pixel_values=torch.cat([group.pixel_values for group in EXAMPLES]),
        image_grid_thw=torch.cat([group.image_grid_thw for group in EXAMPLES]),
        labels=pad_sequence(labels, batch_first=True, padding_value=-100),
    ).loss
    loss.backward()
    strip = {name: name.replace(".default", "") for name in adapter}
    return (
        {strip[n]: p.detach() for n, p in adapter.items()},
        loss.item(),
        {strip[n]: p.grad for n, p in adapter.items()},
    )


@pytest.mark.parametrize("budget", [1, 90, 10_000])
def test_loss_and_gradient(padded: tuple[dict[str, Tensor], float, dict[str, Tensor]], budget: int) -> None:
    adapter, expected, gradient = padded
    policy = PolicyModel(tiny_model())
    add_lora(policy.model, OPTIONS)
    parameters = {
        f"base_model.model.{n}".replace(".default", ""): p for n, p in policy.model.named_parameters() if "lora_" in n
    }
    assert set(parameters) == set(adapter) == set(adapter_weights(policy.model))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[name])

    tokens = sum(len(group.response_ids[0]) for group in EXAMPLES)
    total = 0.0
    for members in first_fit_decreasing([group.tokens for group in EXAMPLES], budget):
        loss = -policy(pack_groups([EXAMPLES[i] for i in members], policy.family)).log_probs.sum() / tokens
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(expected, rel=1e-5)
    for name, parameter in parameters.items():
        assert (parameter.grad - gradient[name]).norm() <= 1e-5 * gradient[name].norm() + 1e-7, name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_adapted_layer_is_that_of_peft(dropout: float) -> None:
    options = LoraOptions(rank=4, alpha=12, dropout=dropout, target="0")
    torch.manual_seed(3)
    model = inject_adapter_in_model(
        options.peft_config(), nn.Sequential(nn.Linear(24, 40)).requires_grad_(False), adapter_name=ADAPTER
    )
    nn.init.normal_(model[0].lora_B[ADAPTER].weight)
    x = torch.randn(2, 5, 24, requires_grad=True)
    results = []
    for layer in (model[0], LoraLinear(model[0])):
        torch.manual_seed(4)
        output = layer(x)
        trained = [layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight]
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *trained])])
    for theirs, ours in zip(*results, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
