"""The trained policy on one rank: sharded weights, optimizer, and the three passes over groups (score, update,
fine-tune).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from verl.config.worker_sections import ActorConfig, ModelConfig, RolloutConfig
from verl.models.lora import LoraOptions
from verl.models.packing import Group, PackedBatch, pack_groups
from verl.models.policy import Policy, load_policy
from verl.workers.groups import EMPTY, Row, StoredGroup, lay_out, most_rows, split_rows
from verl.workers.objective import Totals, add_over_ranks, policy_objective
from verl.workers.offload import HostShelf
from verl.workers.optimizer import build_optimizer, build_schedule, clipped_step
from verl.workers.sharding import DTYPES, drop_gathered, local_bytes, shard


def lora_options(config: ModelConfig) -> LoraOptions | None:
    if config.lora_rank == 0:
        return None
    names = [name.strip() for name in config.lora_target_modules.split(",")]
    within = (
        r"model\.language_model\..*" if config.freeze_vision_tower else ".*"
    )  # the vision tower's layers have some of these names too
    target = None if names == ["all-linear"] else rf"{within}\.({'|'.join(names)})"
    return LoraOptions(config.lora_rank, config.lora_alpha, config.lora_dropout, target=target)  # type: ignore[arg-type]  # peft takes any number


class Actor:
    """Holds and trains the policy.

    Every method that runs the model is a collective: all ranks call it together, with as many groups each as they have.

    Args:
        config: worker.actor.
        rollout: worker.rollout, for the temperature at which responses are sampled and scored, and their length limit.
        mesh: all ranks (verl.workers.sharding.sharding_mesh).
    """

    def __init__(self, config: ActorConfig, rollout: RolloutConfig, mesh: DeviceMesh) -> None:
        self.config, self.rollout = config, rollout
        self.device = torch.device(
            mesh.device_type, torch.cuda.current_device() if mesh.device_type == "cuda" else None
        )
        model = config.model
        assert model.model_path is not None
        frozen = (
            model.lora_rank > 0 and self.device.type == "cuda"
        )  # what is never trained is held as it is computed with
        self.policy: Policy = load_policy(
            model.model_path,
            DTYPES[config.fsdp.torch_dtype or (config.fsdp.mp_param_dtype if frozen else "fp32")],
            lora=lora_options(model),
            gradient_checkpointing=model.enable_gradient_checkpointing,
            freeze_vision=model.freeze_vision_tower,
            overrides=model.override_config,
        )
        shard(self.policy, config.fsdp, mesh)
        if config.use_torch_compile and self.device.type == "cuda":
            self.policy.compile_layers()
        self.optimizer = build_optimizer(self.policy.parameters(), config.optim)
        self.schedule = build_schedule(self.optimizer, config.optim)
        self._weights_shelf, self._optimizer_shelf = HostShelf(), HostShelf()

    def sizes(self) -> dict[str, float]:
        """Bytes of the gradients and of the optimizer's state on this rank's device once training has begun."""
        trained = local_bytes(
            p for p in self.policy.parameters() if p.requires_grad and p.device.type == self.device.type
        )
        return {"gradients": float(trained), "optimizer": 2.0 * trained}

    def bring(self, optimizer: bool = False) -> None:
        """Weights, and the optimizer's state where asked for, back to the GPU."""
        self._weights_shelf.take()
        if optimizer:
            self._optimizer_shelf.take()

    def leave(self) -> None:
        """To the host with what worker.actor.offload names."""
        if self.config.offload.optimizer_offload and not self._optimizer_shelf.is_full:
            self._optimizer_shelf.put(
                value
                for state in self.optimizer.state.values()
                for value in state.values()
                if isinstance(value, Tensor)
            )
        if self.config.offload.param_offload and not self._weights_shelf.is_full:
            self._weights_shelf.put(self.policy.parameters())

    @torch.no_grad()
    def log_probs(
        self, groups: Sequence[Group], policy: Policy | None = None, certainty: bool = False
    ) -> list[list[Tensor]]:
        """fp32 [R_i] per group and response, on the CPU, by this policy or another one with the same sharding.

        With `certainty` it is each token's log-sum-exp minus mean logit instead.
        """
        if policy is None:
            self.bring()
        policy = policy or self.policy
        was_training = policy.training
        policy.eval()
        rows = lay_out(groups, self.config, update=False, device=self.device)
        found: list[tuple[tuple[int, ...], Tensor]] = []
        for row in rows:
            batch = self._pack([groups[i] for i in row.members])
            tokens = policy(batch.to(self.device), self.rollout.temperature, certainty=certainty)
            # fetched at the end, so that a row is packed while the GPU is busy with the one before
            found.append((batch.lengths, tokens.certainty if certainty else tokens.log_probs))
        drop_gathered(policy)
        result: list[list[Tensor]] = [[] for _ in groups]
        for row, (lengths, values) in zip(rows, found):
            scores = list(values.cpu().split(lengths))
            for i in row.members:
                count = len(groups[i].response_ids)
                result[i], scores = scores[:count], scores[count:]
        policy.train(was_training)
        return result

    def update(self, stored: Sequence[StoredGroup], advantages: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
        """One optimizer step on the batch that all ranks' groups make together, whatever rows and ranks they are spread
        over.

        Args:
            advantages: per group and response, float32 [R_i].
        """
        self.bring(optimizer=True)
        self.policy.train()
        config = self.config
        groups = [each.group for each in stored]
        totals = Totals.of(groups, self.device)
        sums: dict[str, Tensor] = {}
        for row in self._training_rows(groups):
            members = [stored[i] for i in row.members]
            batch = self._pack([each.group for each in members])
            scores = self.policy(batch.to(self.device), self.rollout.temperature, entropy=config.entropy_coeff != 0)
            loss, figures = policy_objective(
                scores,
                batch,
                members,
                [advantages[i] for i in row.members],
                totals,
                config,
                self.rollout.response_length,
            )
            (
                loss * dist.get_world_size()
            ).backward()  # FSDP2 averages gradients over ranks, `totals` counts all ranks: undo the average
            for name, value in figures.items():
                sums[name] = sums[name] + value if name in sums else value
        metrics = clipped_step(self.optimizer, self.schedule, config.max_grad_norm)
        self.leave()
        return metrics | add_over_ranks(sums, self.device)

    def fine_tune(self, groups: Sequence[Group], step: bool) -> dict[str, float]:
        """The negative log-likelihood of the responses, averaged over all tokens of all ranks; with `step`, an
        optimizer step on it.
        """
        lengths = [len(ids) for group in groups for ids in group.response_ids]
        rows = [[groups[i] for i in members] for members in split_rows(groups, self.config, update=True)]
        return self._fine_tune([partial(self._pack, row) for row in rows], lengths, step)

    def fine_tune_packed(self, rows: Sequence[PackedBatch]) -> dict[str, float]:
        """`fine_tune`, with an optimizer step, on groups that are packed already."""
        lengths = [length for row in rows for length in row.lengths]
        return self._fine_tune([partial(lambda batch: batch, row) for row in rows], lengths, step=True)

    def _fine_tune(
        self, rows: Sequence[Callable[[], PackedBatch]], lengths: Sequence[int], step: bool
    ) -> dict[str, float]:
        """`lengths`: tokens of each of this rank's responses."""
        self.bring(optimizer=step)
        self.policy.train(step)
        totals = Totals.count(lengths, self.device)
        summed = torch.zeros((), device=self.device)
        most = most_rows(len(rows), self.device)
        with torch.set_grad_enabled(step):
            for number in range(most):
                own = number < len(rows)
                batch = rows[number]() if own else self._pack([])
                self._begin_row(number == most - 1)
                log_probs = self.policy(batch.to(self.device)).log_probs
                loss = -log_probs.sum() / totals.tokens * float(own)
                if step:
                    (loss * dist.get_world_size()).backward()
                summed += loss.detach()
        dist.all_reduce(summed)
        if not step:
            drop_gathered(self.policy)
        metrics = clipped_step(self.optimizer, self.schedule, self.config.max_grad_norm) if step else {}
        self.policy.train()
        self.leave()
        return metrics | {"loss": summed.item(), "tokens": float(totals.tokens)}

    def _training_rows(self, groups: Sequence[Group]) -> Iterator[Row]:
        """The rows of an update."""
        rows = lay_out(groups, self.config, update=True, device=self.device)
        for number, row in enumerate(rows, start=1):
            self._begin_row(number == len(rows))
            yield row

    def _begin_row(self, last: bool) -> None:
        """What can wait for a step's last row: summing the gradients of several copies of the model, and dropping
        gathered weights.
        """
        policy = cast(FSDPModule, self.policy)
        policy.set_requires_all_reduce(last)
        if not self.config.fsdp.enable_full_shard:
            policy.set_reshard_after_backward(last)

    def _pack(self, groups: Sequence[Group]) -> PackedBatch:
        return pack_groups(groups or [EMPTY], self.policy.config)
