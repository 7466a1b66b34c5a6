"""GPU tensors that wait in host memory while another phase uses the GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from verl.workers.sharded_state import local_rows

ALIGNMENT = 64  # bytes, between tensors in the host buffer


def pinned_buffer(size: int) -> Tensor:
    """uint8 [size] in page-locked host memory, as large as asked for; PyTorch's own allocator rounds up to a power of
    two.
    """
    buffer, runtime = torch.empty(size, dtype=torch.uint8), torch.cuda.cudart()
    torch.cuda.check_error(int(runtime.cudaHostRegister(buffer.data_ptr(), size, 0)))
    weakref.finalize(buffer, runtime.cudaHostUnregister, buffer.data_ptr())
    return buffer


class CPUOffloader:
    """Moves the storage of GPU tensors to pinned host memory and back. The tensor objects stay what they are, so
    parameters keep their optimizer state, their place in FSDP2 and their views of the same storage. The host buffer is
    kept for the next time. Tensors on the CPU are left alone.

    Args:
        constant: the tensors never change: they are copied to the host once, and after that their GPU memory is only
            freed.
        make_buffer, device_type: the host memory, and whose tensors are moved.
    """

    def __init__(
        self,
        constant: bool = False,
        make_buffer: Callable[[int], Tensor] = pinned_buffer,
        device_type: str = "cuda",
    ) -> None:
        self.constant, self.make_buffer, self.device_type = constant, make_buffer, device_type
        self.buffer: Tensor | None = None
        self._offloaded: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}
        self._copied: list[int] = []  # constant storages that the buffer holds already

    @property
    def offloaded(self) -> bool:
        return bool(self._offloaded)

    def offload(self, tensors: Iterable[Tensor], empty_cache: bool = True) -> None:
        """Copies the tensors to the host and frees their GPU memory; without `empty_cache` PyTorch keeps it."""
        storages = self._storages(tensors)
        if not storages:
            return
        sizes = [-(-storage.nbytes() // ALIGNMENT) * ALIGNMENT for storage in storages]
        if self.buffer is None or self.buffer.numel() < sum(sizes):
            self.buffer, self._copied = None, []  # before the larger one is taken
            self.buffer = self.make_buffer(sum(sizes))
        chunks = self.buffer[: sum(sizes)].split(sizes)
        kept = [storage._cdata for storage in storages]
        for storage, chunk in zip(storages, chunks):
            host = chunk[: storage.nbytes()]
            if not self.constant or kept != self._copied:
                host.copy_(_bytes(storage), non_blocking=True)
            self._offloaded[storage._cdata] = storage, host
        self._copied = kept if self.constant else []
        self._synchronize()
        for storage in storages:
            storage.resize_(0)
        if empty_cache and self.device_type == "cuda":
            torch.cuda.empty_cache()

    def load_to_device(self) -> None:
        """Copies everything back to where it was."""
        for storage, host in self._offloaded.values():
            storage.resize_(host.numel())
            _bytes(storage).copy_(host, non_blocking=True)
        if self._offloaded:
            self._synchronize()
        self._offloaded = {}

    def discard(self) -> None:
        """Forgets what is on the host: the tensors are no longer needed."""
        self._offloaded = {}

    def read(self, tensor: Tensor) -> Tensor | None:
        """This rank's rows of an offloaded tensor, a view of the host buffer; None where it is not offloaded."""
        local = local_rows(tensor)
        _, host = self._offloaded.get(local.untyped_storage()._cdata, (None, None))
        if host is None:
            return None
        rows = host.view(local.dtype)
        return rows.as_strided(local.size(), local.stride(), rows.storage_offset() + local.storage_offset())

    def _storages(self, tensors: Iterable[Tensor]) -> list[torch.UntypedStorage]:
        found: dict[int, torch.UntypedStorage] = {}
        for tensor in tensors:
            local = local_rows(tensor)
            storage = local.untyped_storage()
            if local.device.type == self.device_type and storage.nbytes():
                found.setdefault(storage.data_ptr(), storage)
        return list(found.values())

    def _synchronize(self) -> None:
        if self.device_type == "cuda":
            torch.cuda.synchronize()


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    """The storage as uint8 [bytes]."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
