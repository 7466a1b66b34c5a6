"""The policy under FSDP2: the same numbers as without it, and the reference of a LoRA run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from tests.verl.models.tiny_qwen import LORA_LANGUAGE_AND_VISION, random_group, tiny_model
from verl.models.lora import LoraOptions, add_lora, disable_adapter
from verl.models.packing import pack_groups
from verl.models.policy_model import PolicyModel

GROUPS = [random_group([4, 9], [(1, 8, 8), (1, 6, 10)], 3), random_group([5], [(1, 10, 4)], 4)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store: Path = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def shard(policy: PolicyModel, dtype: torch.dtype | None) -> PolicyModel:
    mixed = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    for block in policy.blocks():
        fully_shard(block, mesh=mesh, mp_policy=mixed, reshard_after_forward=True)
    fully_shard(policy, mesh=mesh, mp_policy=mixed, reshard_after_forward=True)
    return policy


def loss_of(policy: PolicyModel) -> torch.Tensor:
    scores = policy(pack_groups(GROUPS, policy.family), entropy=True)
    assert scores.log_probs.dtype == torch.float32
    return scores.log_probs.mean() - 0.1 * scores.entropy.mean()


@pytest.mark.usefixtures("world")
def test_sharded_equals_plain() -> None:
    plain = PolicyModel(tiny_model())
    sharded = PolicyModel(copy.deepcopy(tiny_model()))
    sharded.enable_gradient_checkpointing()
    sharded = shard(sharded.train(), None)
    for policy in (plain, sharded):
        loss_of(policy).backward()
    for (name, ours), theirs in zip(sharded.named_parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.usefixtures("world")
def test_half_precision_compute_over_full_precision_weights() -> None:
    plain, sharded = PolicyModel(tiny_model()), PolicyModel(tiny_model())
    sharded.enable_gradient_checkpointing()
    sharded = shard(sharded.train(), torch.bfloat16)
    loss, expected = loss_of(sharded), loss_of(plain)
    loss.backward()
    expected.backward()
    assert abs(loss.item() - expected.item()) < 0.05
    for parameter, reference in zip(sharded.parameters(), plain.parameters()):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert (parameter.grad.full_tensor() - reference.grad).norm() < 0.25 * reference.grad.norm() + 1e-3


@pytest.mark.usefixtures("world")
def test_reference_pass_first_leaves_the_adapter_trainable() -> None:
    base = PolicyModel(tiny_model())
    policy = PolicyModel(tiny_model())
    add_lora(policy.model, LoraOptions(rank=4, alpha=32, target=LORA_LANGUAGE_AND_VISION))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    policy = shard(policy, None)
    with torch.no_grad():
        expected = loss_of(base)
        with disable_adapter(policy.model):
            torch.testing.assert_close(loss_of(policy), expected)
        assert abs(loss_of(policy) - expected) > 1e-3
    loss_of(policy).backward()
    grads = {name: parameter.grad for name, parameter in policy.named_parameters()}
    assert all((grad is not None) == ("lora_" in name) for name, grad in grads.items())
