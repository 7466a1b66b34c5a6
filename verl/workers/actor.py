"""The trained policy on one rank: sharded weights, optimizer, and its passes over groups (log-probabilities, update,
fine-tuning).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from verl.config.worker_sections import ActorConfig, ModelConfig, RolloutConfig
from verl.metric_types import Metrics, ReplicatedMetric
from verl.models.families import load_family
from verl.models.lora import LoraOptions
from verl.models.packing import PackedBatch, TokenizedGroup, pack_groups
from verl.models.policy_model import PolicyModel, load_policy
from verl.workers.micro_batches import DUMMY_GROUP, StoredGroup, make_micro_batches, max_over_ranks, split_micro_batches
from verl.workers.objective import GlobalTokenCounts, all_reduce_sum, policy_objective
from verl.workers.offload import CPUOffloader
from verl.workers.optimizer import build_optimizer, build_schedule, clip_and_step
from verl.workers.optimizer_offload import OptimizerOffloader
from verl.workers.sharding import DTYPES, local_bytes, reshard, shard


def lora_options(config: ModelConfig) -> LoraOptions | None:
    """The adapter that worker.actor.model asks for; None for lora_rank 0."""
    if config.lora_rank == 0:
        return None
    names = [name.strip() for name in config.lora_target_modules.split(",")]
    family = load_family(config.model_path, **config.override_config)
    target = family.lora_targets(names, config.freeze_vision_tower)
    return LoraOptions(config.lora_rank, config.lora_alpha, target, config.lora_dropout)


def gradient_checkpointing_shares(config: ModelConfig) -> tuple[float, float] | None:
    """Shares of the language layers and of the vision tower's blocks that recompute activations; None: none does."""
    if not config.enable_gradient_checkpointing:
        return None
    return config.gradient_checkpointing_language, config.gradient_checkpointing_vision


class Actor:
    """Holds and trains the policy.

    Every method that runs the model is a collective: all ranks call it together, with as many groups each as they have.

    Args:
        config: worker.actor.
        rollout: worker.rollout, for the temperature at which responses are sampled and scored, and their length limit.
        mesh: all ranks (verl.workers.sharding.sharding_mesh).

    Attributes:
        nonfinite_groups: positions, in the last update, of this rank's groups whose loss was not finite.
    """

    def __init__(self, config: ActorConfig, rollout: RolloutConfig, mesh: DeviceMesh) -> None:
        self.config, self.rollout = config, rollout
        cuda, model = mesh.device_type == "cuda", config.model
        self.device = torch.device(mesh.device_type, torch.cuda.current_device() if cuda else None)
        assert model.model_path is not None
        # with LoRA on a GPU the base model is frozen and held in the dtype that it computes in
        default = config.fsdp.mp_param_dtype if model.lora_rank > 0 and cuda else "fp32"
        self.policy: PolicyModel = load_policy(
            model.model_path,
            None,
            lora=lora_options(model),
            gradient_checkpointing=gradient_checkpointing_shares(model),
            freeze_vision=model.freeze_vision_tower,
            overrides=model.override_config,
            attn_implementation=model.attn_implementation,
        )
        self._reduces_once = config.fsdp.reduce_gradients_once or mesh.shape[-1] == 1
        shard(self.policy, config.fsdp, mesh, DTYPES[config.fsdp.torch_dtype or default])
        if config.use_torch_compile and cuda:
            self.policy.compile_layers()
        self.optimizer = build_optimizer(self.policy.parameters(), config.optim)
        self.schedule = build_schedule(self.optimizer, config.optim)
        self.nonfinite_groups: list[int] = []
        self._weights_offloader = CPUOffloader()
        self.optimizer_offloader = OptimizerOffloader(self.optimizer) if config.offload.optimizer_offload else None

    def training_bytes(self) -> dict[str, float]:
        """Bytes of the gradients and of the optimizer's state on this rank's device once training has begun."""
        trained = [p for p in self.policy.parameters() if p.requires_grad and p.device.type == self.device.type]
        shards = float(local_bytes(trained))
        whole = sum(p.numel() for p in trained) * DTYPES[self.config.fsdp.mp_reduce_dtype].itemsize
        return {"gradients": float(whole) if self._reduces_once else shards, "optimizer": 2.0 * shards}

    def load_to_device(self) -> None:
        """Copies weights back to the GPU."""
        self._weights_offloader.load_to_device()

    def offload(self) -> None:
        """Copies weights to the host, where worker.actor.offload.param_offload asks for it."""
        if self.config.offload.param_offload and not self._weights_offloader.offloaded:
            self._weights_offloader.offload(self.policy.parameters())

    @torch.no_grad()
    def log_probs(
        self, groups: Sequence[TokenizedGroup], policy: PolicyModel | None = None, self_certainty: bool = False
    ) -> list[list[Tensor]]:
        """fp32 [R_i] per group and response, on the CPU, by this policy or another one with the same sharding.

        With `self_certainty` it is each token's log-sum-exp minus mean logit instead.
        """
        if policy is None:
            self.load_to_device()
        policy = policy or self.policy
        was_training = policy.training
        policy.eval()
        micro_batches = make_micro_batches(groups, self.config, update=False, device=self.device)
        computed: list[tuple[tuple[int, ...], Tensor]] = []
        for members in micro_batches:
            batch = self._pack([groups[i] for i in members])
            tokens = policy(batch.to(self.device), self.rollout.temperature, self_certainty=self_certainty)
            # fetched at the end, so that a batch is packed while the GPU is busy with the one before
            computed.append((batch.lengths, tokens.self_certainty if self_certainty else tokens.log_probs))
        reshard(policy)
        result: list[list[Tensor]] = [[] for _ in groups]
        for members, (lengths, values) in zip(micro_batches, computed):
            responses = iter(values.cpu().split(lengths))
            for i in members:
                result[i] = [next(responses) for _ in groups[i].response_ids]
        policy.train(was_training)
        return result

    def update(self, stored: Sequence[StoredGroup], advantages: Sequence[Sequence[np.ndarray]]) -> Metrics:
        """One optimizer step on the batch that all ranks' groups make together, whatever micro-batches and ranks they
        are divided into.

        Args:
            advantages: per group and response, float32 [R_i].
        """
        self.load_to_device()
        self.policy.train()
        config = self.config
        groups = [each.group for each in stored]
        counts = GlobalTokenCounts.of([len(ids) for group in groups for ids in group.response_ids], self.device)
        sums: dict[str, Tensor] = {}
        finite: list[Tensor] = []
        micro_batches = make_micro_batches(groups, config, update=True, device=self.device)
        for number, indices in enumerate(micro_batches, start=1):
            self._begin_micro_batch(number == len(micro_batches))
            members = [stored[i] for i in indices]
            batch = self._pack([each.group for each in members])
            outputs = self.policy(batch.to(self.device), self.rollout.temperature, entropy=config.entropy_coeff != 0)
            chosen = [advantages[i] for i in indices]
            limit = self.rollout.response_length
            loss, micro_metrics = policy_objective(outputs, batch, members, chosen, counts, config, limit)
            _backward(loss)
            finite.append(loss.detach().isfinite())
            for name, value in micro_metrics.items():
                sums[name] = sums[name] + value if name in sums else value
        metrics = self._step()
        bad = metrics["actor/skipped_updates"] > 0
        self.nonfinite_groups = (
            [i for each, good in zip(micro_batches, finite) if not good for i in each] if bad else []
        )
        self.offload()
        return metrics | all_reduce_sum(sums, self.device)

    def fine_tune(self, groups: Sequence[TokenizedGroup]) -> Metrics:
        """One optimizer step on the mean negative log-likelihood over all ranks' response tokens; returns the loss."""
        return self._sft_pass(*self._pack_lazily(groups), train=True)

    def fine_tune_packed(self, batches: Sequence[PackedBatch]) -> Metrics:
        """`fine_tune` on groups that are packed already."""
        lengths = [length for batch in batches for length in batch.lengths]
        return self._sft_pass([partial(lambda packed: packed, batch) for batch in batches], lengths, train=True)

    def evaluate_loss(self, groups: Sequence[TokenizedGroup]) -> Metrics:
        """The loss of `fine_tune`, without gradients or a step."""
        return self._sft_pass(*self._pack_lazily(groups), train=False)

    def _pack_lazily(self, groups: Sequence[TokenizedGroup]) -> tuple[list[Callable[[], PackedBatch]], list[int]]:
        """Functions that pack a micro-batch each, and the tokens of each response."""
        micro_batches = split_micro_batches(groups, self.config, update=True)
        batches: list[Callable[[], PackedBatch]] = [
            partial(self._pack, [groups[i] for i in members]) for members in micro_batches
        ]
        return batches, [len(ids) for group in groups for ids in group.response_ids]

    def _sft_pass(self, batches: Sequence[Callable[[], PackedBatch]], lengths: Sequence[int], train: bool) -> Metrics:
        """`lengths`: tokens of each of this rank's responses. With `train` an optimizer step is taken."""
        self.load_to_device()
        self.policy.train(train)
        counts = GlobalTokenCounts.of(lengths, self.device)
        summed = torch.zeros((), device=self.device)
        most = max_over_ranks(len(batches), self.device)
        with torch.set_grad_enabled(train):
            for number in range(most):
                is_local = number < len(batches)
                batch = batches[number]() if is_local else self._pack([])
                self._begin_micro_batch(number == most - 1)
                log_probs = self.policy(batch.to(self.device)).log_probs
                loss = -log_probs.sum() / counts.tokens * float(is_local)
                if train:
                    _backward(loss)
                summed += loss.detach()
        dist.all_reduce(summed)
        if not train:
            reshard(self.policy)
        metrics = self._step() if train else {}
        self.policy.train()
        self.offload()
        return metrics | {"loss": ReplicatedMetric(summed.item()), "response_tokens": ReplicatedMetric(counts.tokens)}

    def _step(self) -> Metrics:
        return clip_and_step(self.optimizer, self.schedule, self.config.max_grad_norm, self.optimizer_offloader)

    def _begin_micro_batch(self, last: bool) -> None:
        """Defers to the last micro-batch what is needed once an update: all-reduces between copies of the model, and as
        configured summing gradients over shards and freeing gathered weights.
        """
        policy = cast(FSDPModule, self.policy)
        if self._reduces_once:
            policy.set_requires_gradient_sync(last)
        else:
            policy.set_requires_all_reduce(last)
        if not self.config.fsdp.enable_full_shard:
            policy.set_reshard_after_backward(last)

    def _pack(self, groups: Sequence[TokenizedGroup]) -> PackedBatch:
        return pack_groups(groups or [DUMMY_GROUP], self.policy.family)


def _backward(loss: Tensor) -> None:
    """FSDP2 averages gradients over ranks, while losses are divided by counts of all ranks: undoes the average."""
    (loss * dist.get_world_size()).backward()
