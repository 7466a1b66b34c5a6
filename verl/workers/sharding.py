"""FSDP2 around the policy, and full tensors out of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from verl.config.worker_sections import FSDPConfig
from verl.models.policy_model import PolicyModel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def sharding_mesh(device_type: str, world: int, size: int = -1) -> DeviceMesh:
    """All ranks in one dimension, or in two (replicate, shard) where `size` neighbours share one copy of the weights:
    hybrid sharding.

    Raises:
        ValueError: the ranks are no whole number of copies.
    """
    if size in (-1, world):
        return init_device_mesh(device_type, (world,))
    if size < 1 or world % size:
        raise ValueError(f"fsdp.fsdp_size={size} does not divide the {world} workers")
    return init_device_mesh(device_type, (world // size, size), mesh_dim_names=("replicate", "shard"))


def shard(policy: PolicyModel, config: FSDPConfig, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Shards the policy in place over the mesh of `sharding_mesh`: its blocks one by one, then what is left as the
    root. `unsharded_parameters` are left out. Only then are the weights cast to `dtype` (adapters stay fp32), so that
    of a policy that is mapped from its file (`load_policy`) a rank reads and holds its own shard alone.

    On CUDA the gathered weights and the computation have `mp_param_dtype`, over the master weights that the policy
    holds; on the CPU everything keeps its dtype, fp32: half precision is slower there, and vLLM's log-probabilities
    could not be compared with the actor's.
    """
    cuda = mesh.device_type == "cuda"
    unsharded = unsharded_parameters(policy, config, mesh, dtype)
    # cast_forward_inputs would round what has to stay fp32 on its way into a block, such as rotary embeddings
    param, reduce = DTYPES[config.mp_param_dtype], DTYPES[config.mp_reduce_dtype]
    mixed = MixedPrecisionPolicy(param, reduce, cast_forward_inputs=False)
    options: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": config.enable_full_shard,
        "mp_policy": mixed if cuda else MixedPrecisionPolicy(),
        "ignored_params": unsharded,
    }
    if config.enable_cpu_offload and cuda:
        options["offload_policy"] = CPUOffloadPolicy()
    for parameter in unsharded:  # FSDP2 moves what it shards; a copy, so that nothing stays mapped to a file
        parameter.data = parameter.data.to(mesh.device_type, dtype, copy=True)
    for block in policy.blocks():
        if not unsharded.issuperset(block.parameters()):
            fully_shard(block, **options)
    fully_shard(policy, **options)
    cast = {id(parameter) for name, parameter in policy.named_parameters() if ".lora_" not in name}
    # FSDP2 takes new shards through _apply alone; buffers, such as rotary frequencies, keep their dtype
    policy._apply(lambda tensor: tensor.to(dtype) if id(tensor) in cast else tensor)


def unsharded_parameters(
    policy: PolicyModel, config: FSDPConfig, mesh: DeviceMesh, dtype: torch.dtype = torch.float32
) -> set[nn.Parameter]:
    """Weights that every rank holds in full, so that nothing of them is gathered: those that are never trained and need
    no cast, where gathered weights stay for a step anyway (`enable_full_shard` off; a shard and a gathered copy take
    more) or one rank has all shards.

    Args:
        dtype: in which frozen weights are held.
    """
    cuda = mesh.device_type == "cuda"
    if (config.enable_full_shard and mesh.shape[-1] > 1) or (config.enable_cpu_offload and cuda):
        return set()
    frozen = {parameter for parameter in policy.parameters() if not parameter.requires_grad}
    return frozen if dtype == DTYPES[config.mp_param_dtype] or not cuda else set()


def reshard(policy: nn.Module) -> None:
    """Frees gathered weights. Those that are not fully sharded stay gathered after a pass without a backward pass, and
    what reads the policy's parameters then (a checkpoint, the weight sync, offloading) would find the gathered copies.
    """
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def make_gather(device: torch.device, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """A function from a sharded parameter to the full tensor on `device`; a collective that every rank has to join.

    Args:
        dtype: the shard is cast to it before it is sent; None keeps the parameter's.
    """

    def gather(parameter: Tensor) -> Tensor:
        local = parameter.to(device=device, dtype=dtype or parameter.dtype)
        if not isinstance(local, DTensor):
            return local
        return local.to_local() if local.device_mesh.size() == 1 else local.full_tensor()

    return gather


def local_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that these tensors take on this rank."""
    total = 0
    for tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        total += local.numel() * local.element_size()
    return total
