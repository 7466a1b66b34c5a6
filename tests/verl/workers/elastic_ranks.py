"""Ranks that train, save and resume in any number: entry points of spawned processes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from tests.processes import free_port, run_ranks
from tests.verl.workers.toy_groups import ROLLOUT, stored_groups
from verl.config.worker_sections import ActorConfig
from verl.workers.actor import Actor
from verl.workers.prompt_builder import PromptBuilder
from verl.workers.sharding import sharding_mesh
from verl.workers.worker_checkpoint import SaveOptions, load_state, load_weights, save_state, save_weights


def train(actor_config: ActorConfig, source: Path | None, target: Path | None, steps: int, options: SaveOptions):
    """The losses of some updates, from a checkpoint and to one."""
    torch.manual_seed(0)
    actor = Actor(actor_config, ROLLOUT, sharding_mesh("cpu", dist.get_world_size(), actor_config.fsdp.fsdp_size))
    if source is not None:
        load_weights(actor.policy, source)
        load_state(actor.policy, actor.optimizer, actor.schedule, source, seed=0)
    own = stored_groups(actor_config.model.model_path)[dist.get_rank() :: dist.get_world_size()]
    batch = [stored for stored, _ in own], [advantages for _, advantages in own]
    metrics = [actor.update(*batch) for _ in range(steps)]
    if target is not None:
        processor = PromptBuilder(actor_config.model.model_path).processor
        save_weights(actor.policy, processor, target, actor.device, options)
        save_state(actor.policy, actor.optimizer, actor.schedule, target, options)
    return [float(each["actor/loss"]) for each in metrics]


def rank_main(rank: int, world: int, port: int, output: str, *args: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    losses = train(*args)
    if rank == 0:
        torch.save(losses, output)
    dist.destroy_process_group()


def on_ranks(world: int, output: Path, *args: object) -> list[float]:
    """`train(*args)` on so many ranks; rank 0's losses."""
    run_ranks(rank_main, (world, free_port(), str(output), *args), world)
    return torch.load(output)
