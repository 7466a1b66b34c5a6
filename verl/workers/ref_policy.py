"""The frozen reference model of the KL term."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from verl.config.worker_sections import RefConfig
from verl.models.lora import disable_adapter
from verl.models.packing import TokenizedGroup
from verl.models.policy_model import load_policy
from verl.workers.actor import Actor
from verl.workers.offload import CPUOffloader
from verl.workers.sharding import DTYPES, shard


class RefPolicy:
    """A sharded copy of the checkpoint that the run started from; with LoRA the actor itself with its adapter disabled,
    which takes no memory.

    The copy is held in `worker.ref.fsdp.torch_dtype`: by default the dtype that it computes in,
    `worker.ref.fsdp.mp_param_dtype`.
    """

    def __init__(self, actor: Actor, config: RefConfig, mesh: DeviceMesh) -> None:
        self.actor, self.offloader, self.offloads = actor, CPUOffloader(constant=True), config.offload.param_offload
        self.policy = actor.policy
        if actor.policy.lora is not None:
            return
        cuda = mesh.device_type == "cuda"
        dtype = config.fsdp.torch_dtype or (config.fsdp.mp_param_dtype if cuda else "fp32")
        model = actor.config.model
        assert model.model_path is not None
        self.policy = load_policy(
            model.model_path,
            None,
            gradient_checkpointing=None,
            overrides=model.override_config,
            attn_implementation=model.attn_implementation,
        )
        self.policy.requires_grad_(False).eval()
        shard(self.policy, config.fsdp, mesh, DTYPES[dtype])
        if actor.config.use_torch_compile and cuda:
            self.policy.compile_layers()
        self._offload()

    def log_probs(self, groups: Sequence[TokenizedGroup]) -> list[list[Tensor]]:
        """fp32 [R_i] per group and response, on the CPU, at the sampling temperature."""
        if self.policy.lora is not None:
            with disable_adapter(self.policy.model):
                return self.actor.log_probs(groups)
        self.offloader.load_to_device()
        with torch.no_grad():
            log_probs = self.actor.log_probs(groups, self.policy)
        self._offload()
        return log_probs

    def _offload(self) -> None:
        if self.offloads and not self.offloader.offloaded:
            self.offloader.offload(self.policy.parameters())
