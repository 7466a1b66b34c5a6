"""The frozen model that the KL term measures from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from verl.config.worker_sections import RefConfig
from verl.models.lora import adapter_off
from verl.models.packing import Group
from verl.models.policy import load_policy
from verl.workers.actor import Actor
from verl.workers.offload import HostShelf
from verl.workers.sharding import DTYPES, shard


class Reference:
    """A sharded copy of the checkpoint that the run started from; with LoRA the actor itself with its adapter off,
    which takes no memory.

    The copy is held in `worker.ref.fsdp.torch_dtype`: by default the dtype that it computes in,
        `worker.ref.fsdp.mp_param_dtype`.
    """

    def __init__(self, actor: Actor, config: RefConfig, mesh: DeviceMesh) -> None:
        self.actor, self.shelf, self.leaves = actor, HostShelf(constant=True), config.offload.param_offload
        self.policy = actor.policy
        if actor.policy.lora is not None:
            return
        cuda = mesh.device_type == "cuda"
        computed = config.fsdp.torch_dtype or (config.fsdp.mp_param_dtype if cuda else "fp32")
        model = actor.config.model
        assert model.model_path is not None
        self.policy = load_policy(
            model.model_path, DTYPES[computed], gradient_checkpointing=False, overrides=model.override_config
        )
        self.policy.requires_grad_(False).eval()
        shard(self.policy, config.fsdp, mesh)
        if actor.config.use_torch_compile and cuda:
            self.policy.compile_layers()
        self.leave()

    def leave(self) -> None:
        if self.leaves and not self.shelf.is_full:
            self.shelf.put(self.policy.parameters())

    def log_probs(self, groups: Sequence[Group]) -> list[list[Tensor]]:
        """Per group and response fp32 [R_i] on the CPU, at the sampling temperature."""
        if self.policy.lora is not None:
            with adapter_off(self.policy.model):
                return self.actor.log_probs(groups)
        self.shelf.take()
        with torch.no_grad():
            scores = self.actor.log_probs(groups, self.policy)
        self.leave()
        return scores
