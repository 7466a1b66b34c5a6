"""Merges the FSDP shards of another verl's checkpoint (EasyR1's, Seg-Zero's, the published release's) into safetensors.

    python -m verl.merge_shards checkpoints/global_step_625/actor --output merged
    python -m verl.merge_shards checkpoints/global_step_625/actor --output merged --dtype fp32

An actor/ folder of theirs holds model_world_size_<W>_rank_<r>.pt and, in huggingface/, config and processor without
weights. The shards are read as data: of their pickles only tensors and where they belong are taken, and nothing is run.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shutil
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_NAME = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class ShardError(ValueError):
    """Shards that cannot be merged; the message is one line."""


class UnpickledObject:
    """Stands for an object of torch.distributed: its class's name, what it was made of, and its state."""

    def __new__(cls, *args: Any, **_: Any) -> UnpickledObject:
        found = object.__new__(cls)
        found.__dict__.update(args=args, fields={})
        return found

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            self.__dict__["fields"].update(part or {})


@dataclass(frozen=True)
class TensorShard:
    """A rank's shard of a tensor: along which dimension (None: it has the whole one), and the whole one's shape."""

    local: Tensor
    dim: int | None
    shape: tuple[int, ...]


class ShardUnpickler(pickle.Unpickler):
    """Knows tensors and their storages, and makes `UnpickledObject`s of torch.distributed's; refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._tensor" and name == "_rebuild_from_type_v2":
            return _rebuild
        if module == "torch._utils" and name == "_rebuild_wrapper_subclass":
            return None  # what `_rebuild` is given, and does not call
        if module.split(".")[:2] == ["torch", "distributed"]:
            return type(name, (UnpickledObject,), {})
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch.serialization", "_get_layout")):
            return super().find_class(module, name)
        if module == "torch" and (
            name in ("Size", "device")
            or name.endswith("Storage")
            or isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no part of sharded weights")


def _rebuild(_: Any, kind: type, __: Any, state: Any) -> TensorShard:
    """A DTensor as a `TensorShard`, whichever release of torch wrote it."""
    fields: dict[str, Any] = {}
    for part in state if isinstance(state, tuple) else (state,):
        fields.update(part or {})
    local, spec = fields.get("_local_tensor"), fields.get("_spec")
    if local is None or spec is None:
        raise pickle.UnpicklingError(f"a {kind.__name__} is no DTensor")
    placements = [place for place in spec.fields["placements"] if type(place).__name__ == "Shard"]
    if len(placements) > 1:
        raise pickle.UnpicklingError("a weight is sharded along several dimensions (tensor parallel)")
    dim = None
    if placements:
        (place,) = placements
        dim = int(place.fields["dim"] if "dim" in place.fields else place.args[0])
    shape = spec.fields["tensor_meta"].args[0]
    return TensorShard(local, dim, tuple(shape))


def find_shards(actor: Path) -> list[Path]:
    """The shards of a folder by rank. Raises ShardError when there are none, or not all of one run."""
    found = {tuple(map(int, m.groups())): path for path in actor.glob("*.pt") if (m := _NAME.fullmatch(path.name))}
    if not found:
        raise ShardError(f"{actor} holds no model_world_size_<W>_rank_<r>.pt")
    worlds = {world for world, _ in found}
    if len(worlds) > 1:
        raise ShardError(f"{actor} holds the shards of runs of {' and '.join(map(str, sorted(worlds)))} ranks")
    (world,) = worlds
    missing = [str(rank) for rank in range(world) if (world, rank) not in found]
    if missing:
        raise ShardError(f"{actor}: the shards of {world} ranks are not complete, rank {', '.join(missing)} is missing")
    return [found[world, rank] for rank in range(world)]


def load_shard(path: Path) -> dict[str, Any]:
    """Weight's name -> `TensorShard`, or a whole tensor. Raises ShardError for a damaged file, or one of others."""
    reader: Any = SimpleNamespace(Unpickler=ShardUnpickler, __name__="verl.merge_shards")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False, pickle_module=reader)
    except Exception as error:  # a damaged file raises errors of any kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ShardError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(each, TensorShard | Tensor) for each in content.values()):
        raise ShardError(f"{path} holds no weights sharded as DTensors")
    return dict(content)


def merge_weight(name: str, shards: Sequence[Mapping[str, Any]]) -> Tensor:
    """One whole weight. Raises ShardError when its shards do not add up to it."""
    pieces = [shard.get(name) for shard in shards]
    first = pieces[0]
    if isinstance(first, Tensor):
        return first
    if first is None or first.dim is None:
        return first.local if first is not None else torch.empty(0)
    local, length = [], 0
    for piece in pieces:  # copies of the whole weight, over hosts, come after the first
        if isinstance(piece, TensorShard) and length < first.shape[first.dim]:
            local.append(piece.local)
            length += piece.local.shape[first.dim]
    whole = torch.cat(local, first.dim)
    if tuple(whole.shape) != first.shape:
        raise ShardError(f"{name}: the shards make a tensor of {tuple(whole.shape)}, not of {first.shape}")
    return whole


def merge_checkpoint(actor: Path, output: Path, dtype: torch.dtype, max_shard_size: str = "5GB") -> int:
    """Writes `output`: safetensors, and config and processor from `actor`/huggingface. Returns the number of weights.

    Raises:
        ShardError: nothing to merge, or something that cannot be merged; or `output` has weights already.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    if not (actor / "huggingface" / "config.json").is_file():
        raise ShardError(f"{actor / 'huggingface' / 'config.json'} is missing: it says which model the weights are of")
    if any(output.glob("*.safetensors")):
        raise ShardError(f"{output} holds weights already: give another --output")
    shards = [load_shard(path) for path in find_shards(actor)]
    shapes = {name: each.shape for name, each in shards[0].items()}
    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()},
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    output.mkdir(parents=True, exist_ok=True)
    for file, names in plan.filename_to_tensors.items():
        weights = {name: merge_weight(name, shards).to(dtype).contiguous() for name in names}
        save_file(weights, output / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (output / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    for path in sorted((actor / "huggingface").iterdir()):
        if path.is_file() and path.suffix not in (".safetensors", ".bin", ".pt"):
            shutil.copy2(path, output / path.name)
    return len(shapes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m verl.merge_shards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("actor", type=Path, help="the folder of the shards")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the merged checkpoint")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the merged weights (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        count = merge_checkpoint(options.actor, options.output, DTYPES[options.dtype])
    except (ShardError, OSError) as error:
        print(f"verl.merge_shards: {error}", file=sys.stderr)
        return 2
    print(f"{count} weights in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
