"""Groups as a rollout leaves them, without a rollout; and an update of them, in this process or on several ranks."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist

from tests.verl.workers.toy_task import ToyData
from verl.config.worker_sections import ActorConfig, ModelConfig, OptimConfig, RolloutConfig
from verl.models.lora import merged_weights
from verl.models.packing import TokenizedGroup
from verl.workers.actor import Actor
from verl.workers.micro_batches import StoredGroup
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.sharding import make_gather, sharding_mesh

ROLLOUT = RolloutConfig(prompt_length=600, response_length=16)


def config(folder: str, **options) -> ActorConfig:
    """fp32, a learning rate that shows, the KL and the entropy term on.

    The eps keeps Adam from turning rounding errors of gradients near 0 into whole steps: its nature, and not what these
    tests measure.
    """
    base = ActorConfig(
        kl_loss_coef=0.1, entropy_coeff=0.01, optim=OptimConfig(lr=1e-2, eps=1e-3), model=ModelConfig(model_path=folder)
    )
    return replace(base, **options)


def stored_groups(folder: str, count: int = 4, responses: int = 3) -> list[tuple[StoredGroup, list[np.ndarray]]]:
    """Groups of ragged responses with random log-probabilities of the other models, and their advantages."""
    builder, data, rng = PromptBuilder(folder), ToyData(), np.random.default_rng(5)
    result = []
    for index in range(count):
        prompt = builder.build(data.example(index, 1))
        ids = [torch.from_numpy(rng.integers(0, 256, int(rng.integers(1, 16)))) for _ in range(responses)]
        group = TokenizedGroup(prompt.ids, ids, prompt.pixel_values, prompt.image_grid_thw)
        others = [[torch.from_numpy(rng.normal(-6, 0.5, len(x)).astype(np.float32)) for x in ids] for _ in range(2)]
        advantages = [np.full(len(x), rng.normal(), np.float32) for x in ids]
        result.append((StoredGroup(group, others[0], ref_log_probs=others[1]), advantages))
    return result


def updated(actor_config: ActorConfig, steps: int = 2) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Metrics of the last of some updates on all ranks' parts of the same batch, and the weights after it."""
    torch.manual_seed(0)
    mesh = sharding_mesh("cpu", dist.get_world_size(), actor_config.fsdp.fsdp_size)
    actor = Actor(actor_config, ROLLOUT, mesh)
    own = stored_groups(actor_config.model.model_path)[dist.get_rank() :: dist.get_world_size()]
    for _ in range(steps):
        metrics = actor.update([stored for stored, _ in own], [advantages for _, advantages in own])
    return {name: float(value) for name, value in metrics.items()}, dict(
        merged_weights(actor.policy.model, make_gather(torch.device("cpu")))
    )


def rank_main(rank: int, world: int, port: int, actor_configs: list[ActorConfig], output: str) -> None:
    """Entry of a spawned rank; rank 0 leaves what `updated` gives in a file."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    results = [updated(each) for each in actor_configs]
    if rank == 0:
        torch.save(results, output)
    dist.destroy_process_group()
