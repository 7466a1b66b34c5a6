"""A worker's checkpoint: weights that transformers and vLLM load, and what training needs to resume to the bit.

huggingface/    config, tokenizer, processor and the whole model as safetensors (LoRA: merged, if lora_merge)
adapter/        LoRA: the adapter as peft writes it
state/          of each rank: its rows of the optimizer's state, its random state; state.json: the number of updates

Everything is safetensors or JSON. Every rank writes and reads its own rows, and none holds the whole model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from verl.atomic_files import FileChecksums, fsync_file, write_text_atomically
from verl.models.lora import ADAPTER, adapter_weights, merged_weights
from verl.models.policy_model import PolicyModel
from verl.workers.optimizer_offload import MOMENTS, OptimizerOffloader
from verl.workers.random_state import random_state, seed_everything, set_random_state
from verl.workers.safetensors_writer import SafetensorsWriter, TensorSpec
from verl.workers.sharded_state import ShardReader, local_rows, rank_file, read_tensor, write_shard
from verl.workers.sharding import make_gather

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 5 << 30


@dataclass(frozen=True)
class SaveOptions:
    """What a checkpoint holds.

    Attributes:
        merge: with LoRA, the merged model too.
        dtype: of the model in huggingface/; None: as it is held, of a merged model fp32. A dtype narrower than the held
            one does not resume by itself: then the held weights are kept in state/.
        state: what resuming needs; without it a checkpoint is weights alone.
    """

    merge: bool = True
    dtype: torch.dtype | None = None
    state: bool = True


def save_weights(
    policy: PolicyModel, processor: Any, folder: Path, device: torch.device, options: SaveOptions
) -> FileChecksums:
    """Writes huggingface/ and, with LoRA, adapter/. Every rank calls it (gathering is a collective), rank 0 writes, one
    full tensor at a time.

    Returns:
        what this rank wrote.

    Raises:
        ValueError: a weight is not finite; names it.
    """
    first, gather = dist.get_rank() == 0, make_gather(device)
    target = folder / "huggingface"
    target.mkdir(parents=True, exist_ok=True)
    files: FileChecksums = {}
    if policy.lora is not None:
        (folder / "adapter").mkdir(exist_ok=True)
        adapter = adapter_weights(policy.model, gather)
        entries = [TensorSpec(name, weight.dtype, weight.shape) for name, weight in adapter.items()]
        files |= _write(folder, ["adapter/adapter_model.safetensors"], [entries], iter(adapter.items()))
        if first:
            policy.lora.peft_config().save_pretrained(str(folder / "adapter"))
            files["adapter/adapter_config.json"] = fsync_file(folder / "adapter" / "adapter_config.json")
    if policy.lora is None or options.merge:
        dtype, names = _exported_dtype(policy, options), policy.family.checkpoint_names()
        held = [(name, p) for name, p in policy.model.named_parameters() if ".lora_" not in name]
        entries = [TensorSpec(names[name.replace(".base_layer.", ".")], dtype, p.shape) for name, p in held]
        groups = _split(entries)
        paths = ["model.safetensors"]
        if len(groups) > 1:
            paths = [f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
        files |= _write(folder, [f"huggingface/{path}" for path in paths], groups, merged_weights(policy.model, gather))
        if first:
            policy.family.save_config(target, dtype, policy.model.generation_config)
            if len(groups) > 1:
                _write_index(target, paths, groups)
    if first:
        processor.save_pretrained(target)
        small = [path for path in target.iterdir() if f"huggingface/{path.name}" not in files]
        files |= {f"huggingface/{path.name}": fsync_file(path) for path in small}
    return files


def _exported_dtype(policy: PolicyModel, options: SaveOptions) -> torch.dtype:
    """A merged model is fp32: small changes of the weights vanish in half precision."""
    held = torch.float32 if policy.lora is not None else next(iter(policy.model.parameters())).dtype
    return options.dtype or held


def _split(entries: Sequence[TensorSpec]) -> list[list[TensorSpec]]:
    """Consecutive groups of at most MAX_FILE_BYTES."""
    groups: list[list[TensorSpec]] = [[]]
    for entry in entries:
        if groups[-1] and sum(each.size for each in groups[-1]) + entry.size > MAX_FILE_BYTES:
            groups.append([])
        groups[-1].append(entry)
    return groups


def _write(
    folder: Path, paths: Sequence[str], groups: Sequence[Sequence[TensorSpec]], weights: Iterator[tuple[str, Tensor]]
) -> FileChecksums:
    """Writes full tensors, in the order of the entries, on rank 0; the others go through the collectives."""
    first, files = dist.get_rank() == 0, FileChecksums()
    for path, entries in zip(paths, groups, strict=True):
        with SafetensorsWriter(folder / path, entries, {"format": "pt"}) if first else nullcontext() as file:
            for _, (name, weight) in zip(entries, weights):
                if file is None:
                    continue
                if not bool(weight.isfinite().all()):
                    raise ValueError(f"{name} holds values that are not finite: the weights are ruined and not saved")
                file.write(weight)
        if file is not None:
            files[path] = file.checksum
    return files


def _write_index(folder: Path, paths: Sequence[str], groups: Sequence[Sequence[TensorSpec]]) -> None:
    """Which file has which tensor, as transformers and vLLM read it."""
    where = {entry.name: path for path, entries in zip(paths, groups) for entry in entries}
    total = sum(entry.size for entries in groups for entry in entries)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_text_atomically(folder / "model.safetensors.index.json", json.dumps(index, indent=2))


def load_weights(policy: PolicyModel, folder: Path) -> None:
    """Fills the sharded policy from what `save_weights` wrote, or where that is narrower from what `save_state` kept;
    each rank reads its own rows.

    Raises:
        ValueError: the checkpoint is of another model, or no safetensors.
    """
    if policy.lora is not None:
        rows = ShardReader([folder / "adapter" / "adapter_model.safetensors"])
        trained = {name: p for name, p in policy.model.named_parameters() if ".lora_" in name}
        for name, parameter in trained.items():
            rows.read_into(f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}", parameter)
        return
    held = ShardReader((folder / "state").glob("rank_*.safetensors"))
    saved, names = ShardReader((folder / "huggingface").glob("*.safetensors")), policy.family.checkpoint_names()
    for name, parameter in policy.model.named_parameters():
        if f"weights.{name}" in held:
            held.read_into(f"weights.{name}", parameter)
        else:
            saved.read_into(names[name], parameter)


def save_state(
    policy: PolicyModel,
    optimizer: Optimizer,
    schedule: LambdaLR,
    folder: Path,
    options: SaveOptions | None = None,
    offloader: OptimizerOffloader | None = None,
) -> FileChecksums:
    """Writes this rank's file of state/, rank 0 also state.json; returns what it wrote. Moments that `offloader` has on
    the host are written from there.
    """
    target = folder / "state"
    target.mkdir(parents=True, exist_ok=True)
    rank, steps = dist.get_rank(), dict[str, int]()
    tensors: dict[str, Tensor] = {}
    for name, parameter in policy.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS}
            steps[name] = int(state["step"])
    options = options or SaveOptions()
    if policy.lora is None and options.dtype is not None:
        tensors |= {f"weights.{name}": p.detach() for name, p in policy.model.named_parameters()}
    own, numbers = random_state()
    header, read = {"steps": steps, "random": numbers}, offloader.read if offloader else local_rows
    files = {f"state/{rank_file(rank)}": write_shard(target / rank_file(rank), tensors, own, header, read)}
    if rank == 0:
        state = {"workers": dist.get_world_size(), "updates": schedule.last_epoch}
        write_text_atomically(target / "state.json", json.dumps(state))
        files["state/state.json"] = fsync_file(target / "state.json")
    return files


def load_state(
    policy: PolicyModel,
    optimizer: Optimizer,
    schedule: LambdaLR,
    folder: Path,
    seed: int,
    offloader: OptimizerOffloader | None = None,
) -> None:
    """Reads what `save_state` wrote with any number of workers; with another number than now, random states are derived
    anew from `seed` and the number of updates.

    Learning rate, betas, epsilon and weight decay are those that the optimizer was built with, not the checkpoint's, so
    a run that resumes with others has them from its first update.

    Raises:
        ValueError: the checkpoint is of another model, or no safetensors.
    """
    target, rank, world = folder / "state", dist.get_rank(), dist.get_world_size()
    state = json.loads((target / "state.json").read_text(encoding="utf-8"))
    rows = ShardReader(target.glob("rank_*.safetensors"))
    steps = {name: step for header in rows.headers.values() for name, step in header["steps"].items()}
    fused = optimizer.defaults["fused"]
    for name, parameter in policy.named_parameters():
        if name not in steps:
            continue
        moments = {moment: torch.zeros_like(parameter.detach()) for moment in MOMENTS}
        for moment, tensor in moments.items():
            rows.read_into(f"{moment}.{name}", tensor)
        step = torch.tensor(float(steps[name]), device=parameter.device if fused else "cpu")
        optimizer.state[parameter] = {"step": step, **moments}
        if offloader:
            offloader.moments_loaded(parameter)
    updates = state["updates"]
    schedule.load_state_dict(schedule.state_dict() | {"last_epoch": updates, "_step_count": updates + 1})
    for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas):
        group["lr"] = base * factor(updates)
    if state["workers"] == world:
        own = target / rank_file(rank)
        tensors = {name: read_tensor(own, name) for name in rows if name.startswith("random.")}
        set_random_state(tensors, rows.headers[own.name]["random"])
        return
    if rank == 0:
        message = "%s was written by %d workers and %d go on: random states are derived anew"
        log.warning(message, folder, state["workers"], world)
    seed_everything(int(np.random.SeedSequence([seed, updates, rank]).generate_state(1)[0]))
