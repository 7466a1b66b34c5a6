"""A worker's checkpoint: weights that transformers and vLLM load, and what this engine needs to resume to the bit.

huggingface/    config, tokenizer, processor and the whole model as safetensors (LoRA: merged, if lora_merge)
adapter/        LoRA: the adapter as peft writes it
optimizer/      the optimizer's shards (torch.distributed.checkpoint), readable with another number of ranks
rank_<r>.pt     learning-rate schedule and random state of each rank
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from verl.models.lora import ADAPTER, adapter_weights, merged_weights
from verl.models.policy import Policy
from verl.workers.sharding import copy_into_shard, make_gather


def save_weights(policy: Policy, processor: Any, folder: Path, device: torch.device, merge: bool = True) -> None:
    """Writes huggingface/ and, with LoRA, adapter/. Every rank calls it (gathering is a collective), rank 0 writes, one
    full tensor on the GPU at a time.

    Args:
        merge: with LoRA, also write the merged model.
    """
    first = dist.get_rank() == 0
    gather = make_gather(device)
    if policy.lora is not None:
        adapter = {name: weight.cpu() for name, weight in adapter_weights(policy.model, gather).items()}
        if first:
            (folder / "adapter").mkdir(parents=True, exist_ok=True)
            save_file(adapter, folder / "adapter" / "adapter_model.safetensors")
            policy.lora.peft_config().save_pretrained(str(folder / "adapter"))
    if policy.lora is None or merge:
        weights: dict[str, Tensor] = {}
        for name, weight in merged_weights(policy.model, gather):
            if first:
                weights[name] = weight.cpu()
        if first:
            policy.family.save(weights, policy.model.generation_config, folder / "huggingface")
    if first:
        processor.save_pretrained(folder / "huggingface")


def load_weights(policy: Policy, folder: Path) -> None:
    """Fills the sharded policy from what `save_weights` wrote; every rank reads the file, each keeps its shard."""
    parameters = dict(policy.model.named_parameters())
    if policy.lora is not None:
        saved = load_file(folder / "adapter" / "adapter_model.safetensors")
        full = {
            name.removeprefix("base_model.model.").removesuffix(".weight") + f".{ADAPTER}.weight": value
            for name, value in saved.items()
        }
        wanted = {name for name in parameters if ".lora_" in name}
    else:
        dtype = next(iter(parameters.values())).dtype
        full = dict(policy.family.from_pretrained(folder / "huggingface", dtype).named_parameters())
        wanted = set(parameters)
    if odd := sorted(wanted ^ set(full)):
        raise ValueError(f"{folder} does not fit the model: {len(odd)} weights are on one side only, such as {odd[0]}")
    for name in sorted(wanted):
        copy_into_shard(parameters[name], full[name])


def save_state(policy: Policy, optimizer: Optimizer, schedule: LRScheduler, folder: Path) -> None:
    """Writes optimizer/ and rank_<r>.pt."""
    dcp.save({"optimizer": get_optimizer_state_dict(policy, optimizer)}, checkpoint_id=str(folder / "optimizer"))
    torch.save({"schedule": schedule.state_dict(), "random": random_state()}, folder / f"rank_{dist.get_rank()}.pt")
    if dist.get_rank() == 0:
        (folder / "ranks.json").write_text(json.dumps({"world_size": dist.get_world_size()}))


def load_state(policy: Policy, optimizer: Optimizer, schedule: LambdaLR, folder: Path) -> None:
    """Reads optimizer/ and rank_<r>.pt. Learning rate, betas, epsilon and weight decay are those that the optimizer was
    built with, not the checkpoint's, so a run that resumes with others has them from its first update.

    Raises:
        ValueError: another number of ranks wrote the checkpoint, so that the random states do not fit.
    """
    ranks = json.loads((folder / "ranks.json").read_text())["world_size"]
    if ranks != dist.get_world_size():
        readers = dist.get_world_size()
        raise ValueError(f"{folder} was written by {ranks} workers and is read by {readers}: resume with {ranks}")
    keys = ("initial_lr", "betas", "eps", "weight_decay")
    given = [{key: group[key] for key in keys} for group in optimizer.param_groups]
    state = {"optimizer": get_optimizer_state_dict(policy, optimizer)}
    dcp.load(state, checkpoint_id=str(folder / "optimizer"))
    set_optimizer_state_dict(policy, optimizer, state["optimizer"])
    # weights_only=False: it holds numpy's and Python's random state; this program wrote it
    own = torch.load(folder / f"rank_{dist.get_rank()}.pt", weights_only=False)
    schedule.load_state_dict(own["schedule"])
    schedule.base_lrs = [each["initial_lr"] for each in given]
    for group, each, factor in zip(optimizer.param_groups, given, schedule.lr_lambdas):
        group |= each | {"lr": each["initial_lr"] * factor(schedule.last_epoch)}
    set_random_state(own["random"])


def random_state() -> dict[str, Any]:
    """Python's, numpy's and torch's generators, the GPU's too where there is one."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)
