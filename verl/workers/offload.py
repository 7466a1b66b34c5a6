"""GPU tensors that wait in host memory while another phase uses the GPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class CPUOffloader:
    """Moves the storage of GPU tensors to pinned host memory and back. The tensor objects stay what they are, so
    parameters keep their optimizer state, their place in FSDP2 and their views of the same storage. Host buffers are
    kept for the next time. Tensors on the CPU are left alone.

    Args:
        constant: the tensors never change: they are copied to the host once, and after that their GPU memory is only
            freed.
    """

    def __init__(self, constant: bool = False) -> None:
        self.constant = constant
        self._offloaded: list[tuple[torch.UntypedStorage, Tensor]] = []
        self._buffers: dict[int, list[Tensor]] = {}  # spare ones, by their bytes
        self._copies: dict[int, Tensor] = {}  # of constant tensors, by their storage

    @property
    def offloaded(self) -> bool:
        return bool(self._offloaded)

    def offload(self, tensors: Iterable[Tensor]) -> None:
        """Copies the tensors to the host and frees their GPU memory."""
        seen: set[int] = set()
        for tensor in tensors:
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            storage = local.untyped_storage()
            if not local.is_cuda or storage.data_ptr() in seen or storage.nbytes() == 0:
                continue
            seen.add(storage.data_ptr())
            buffer = self._copies.get(storage._cdata)
            if buffer is None:
                spare = self._buffers.setdefault(storage.nbytes(), [])
                buffer = spare.pop() if spare else torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=True)
                buffer.copy_(_bytes(storage), non_blocking=True)
            self._offloaded.append((storage, buffer))
        if self._offloaded:
            torch.cuda.synchronize()
            for storage, _ in self._offloaded:
                storage.resize_(0)
            torch.cuda.empty_cache()

    def reload(self) -> None:
        """Copies everything back to where it was."""
        for storage, buffer in self._offloaded:
            storage.resize_(buffer.numel())
            _bytes(storage).copy_(buffer, non_blocking=True)
        if self._offloaded:
            torch.cuda.synchronize()
        for storage, buffer in self._offloaded:
            if self.constant:
                self._copies[storage._cdata] = buffer
            else:
                self._buffers[buffer.numel()].append(buffer)
        self._offloaded = []


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    """The storage as uint8 [bytes]."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
