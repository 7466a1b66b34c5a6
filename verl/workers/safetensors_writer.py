"""safetensors files, written tensor by tensor, so that none but the present one is in memory."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor

from verl.atomic_files import FileChecksum

# https://github.com/huggingface/safetensors#format
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.uint8: "U8",
}


class TensorSpec(NamedTuple):
    """One tensor of a file: known before the tensor is."""

    name: str
    dtype: torch.dtype
    shape: Sequence[int]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsWriter:
    """Writes the tensors of `entries` in their order, and puts the file on the disk at the end. A context manager.

    Args:
        entries: widest dtype first, so that all lie on multiples of their size.
        metadata: texts in the file's header.

    Attributes:
        checksum: of the whole file; after the block.
    """

    checksum: FileChecksum

    def __init__(self, path: Path, entries: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None) -> None:
        self.path, self._left = path, list(entries)
        header: dict[str, object] = {"__metadata__": dict(metadata or {})}
        end = 0
        for entry in entries:
            start, end = end, end + entry.size
            header[entry.name] = {
                "dtype": DTYPE_NAMES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._size, self._crc32 = 0, 0
        self._file = path.open("wb", buffering=0)
        self._write(len(text).to_bytes(8, "little") + text)

    def write(self, tensor: Tensor) -> None:
        """The next tensor, cast to its entry's dtype."""
        entry = self._left.pop(0)
        if tuple(tensor.shape) != tuple(entry.shape):
            raise ValueError(f"{entry.name}: {tuple(tensor.shape)} is written where {tuple(entry.shape)} was announced")
        data = tensor.detach().to("cpu", entry.dtype).contiguous()
        if data.numel():
            self._write(memoryview(data.reshape(-1).view(torch.uint8).numpy()))

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            written = self._file.write(left)
            left = left[written:]
        self._size, self._crc32 = self._size + len(data), zlib.crc32(data, self._crc32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                if self._left:
                    raise ValueError(f"{self.path}: {len(self._left)} tensors were not written")
                os.fsync(self._file.fileno())
        self.checksum = FileChecksum(self._size, self._crc32)
