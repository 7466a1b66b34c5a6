"""Sharded tensors in files: each rank writes its own rows, and any number of ranks read theirs again.

state/rank_00000.safetensors, one a rank, holds of each sharded tensor the rows that the rank had; the header's
`first_rows` says where they begin. Reading opens no other format than safetensors and JSON, so a file that somebody
else made can hold wrong numbers, but no code.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from verl.atomic_files import FileChecksum
from verl.workers.safetensors_writer import SafetensorsWriter, TensorSpec

FIRST_ROWS = "first_rows"  # in a file's header: tensor -> number of its first row, JSON


def rank_file(rank: int) -> str:
    return f"rank_{rank:05d}.safetensors"


def local_rows(tensor: Tensor) -> Tensor:
    """This rank's rows, without a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """The number of this rank's first row in the full tensor: FSDP2 shards dimension 0 as `torch.chunk` does."""
    if not isinstance(tensor, DTensor):
        return 0
    shards = tensor.device_mesh.size(-1)
    rows = -(-tensor.shape[0] // shards)
    return min(tensor.shape[0], rows * tensor.device_mesh.get_local_rank(tensor.device_mesh.ndim - 1))


def is_first_copy(tensor: Tensor) -> bool:
    """Whether this rank's rows are the first copy of them: the others need not be saved."""
    if not isinstance(tensor, DTensor):
        return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    return tensor.device_mesh.ndim == 1 or tensor.device_mesh.get_local_rank(0) == 0


def write_shard(
    path: Path,
    tensors: Mapping[str, Tensor],
    extra: Mapping[str, Tensor],
    header: Any,
    read: Callable[[Tensor], Tensor] = local_rows,
) -> FileChecksum:
    """Writes this rank's rows of sharded tensors.

    Args:
        extra: this rank's own tensors, written whole.
        header: JSON, kept under "header".
        read: gives this rank's rows of a tensor.
    """
    own = {name: tensor for name, tensor in tensors.items() if is_first_copy(tensor)}
    parts = sorted(own.items(), key=lambda item: -item[1].dtype.itemsize)
    entries = [TensorSpec(name, tensor.dtype, local_rows(tensor).shape) for name, tensor in parts]
    entries += [TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in extra.items()]
    rows = json.dumps({name: first_row(tensor) for name, tensor in parts})
    with SafetensorsWriter(path, entries, {FIRST_ROWS: rows, "header": json.dumps(header)}) as file:
        for _, tensor in parts:
            file.write(read(tensor))
        for tensor in extra.values():
            file.write(tensor)
    return file.checksum


class _Piece(NamedTuple):
    path: Path
    start: int
    end: int


class ShardReader:
    """The files of all ranks as one collection of full tensors, of which slices are read.

    Args:
        paths: files of `write_shard`, or of whole tensors.

    Attributes:
        headers: file name -> what `write_shard` was given as its header.

    Raises:
        ValueError: a file that is no safetensors file; names it.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pieces: dict[str, list[_Piece]] = defaultdict(list)
        self.headers: dict[str, Any] = {}
        for path in sorted(paths):
            file = _opened(path)
            metadata = file.metadata() or {}
            rows = json.loads(metadata.get(FIRST_ROWS, "{}"))
            self.headers[path.name] = json.loads(metadata.get("header", "null"))
            for name in file.keys():  # noqa: SIM118  # no dictionary
                shape, start = file.get_slice(name).get_shape(), rows.get(name, 0)
                self._pieces[name].append(_Piece(path, start, start + (shape[0] if shape else 1)))

    def __contains__(self, name: str) -> bool:
        return name in self._pieces

    def __iter__(self) -> Any:
        return iter(self._pieces)

    @torch.no_grad()
    def read_into(self, name: str, target: Tensor) -> None:
        """Fills this rank's rows of `target` and casts them to its dtype; no more than those is read.

        Raises:
            ValueError: the tensor is missing, has another shape, or rows are missing; names it.
        """
        own, pieces = local_rows(target), self._pieces.get(name, [])
        start = first_row(target)
        end, filled = start + len(own), 0
        if max((piece.end for piece in pieces), default=0) != len(target):
            raise ValueError(f"{name}: the checkpoint has no {len(target)} rows of it: it is of another model")
        for piece in pieces:
            low, high = max(start, piece.start), min(end, piece.end)
            if low >= high:
                continue
            # opened anew, since what was read of a mapped file stays resident as long as that is open
            rows = _opened(piece.path).get_slice(name)[low - piece.start : high - piece.start]
            if rows.shape[1:] != own.shape[1:]:
                shapes = f"{tuple(rows.shape[1:])} where the model has {tuple(own.shape[1:])}"
                raise ValueError(f"{name}: rows of shape {shapes}: the checkpoint is of another model")
            own[low - start : high - start].copy_(rows)
            filled += high - low
        if filled != len(own):
            raise ValueError(f"{name}: {len(own) - filled} rows are in none of the checkpoint's files")


def read_tensor(path: Path, name: str) -> Tensor:
    """One whole tensor of a file."""
    return _opened(path).get_tensor(name)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
