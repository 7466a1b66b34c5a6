"""Copies of host tensors to a GPU that goes on computing.

A copy from pageable memory blocks the host until the GPU has run everything launched before it, and the GPU then waits
for new launches. A copy from pinned memory is queued among them.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")


def to_device(value: T, device: torch.device | str) -> T:
    """A tensor, or every tensor of a pytree, on the device; the host does not wait for the copies."""

    def copy(tensor: Tensor) -> Tensor:
        if torch.device(device).type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    return pytree.tree_map_only(Tensor, copy, value)


def pin_memory(value: T) -> T:
    """Every tensor of a pytree in pinned memory, from which a GPU copies while it computes."""
    return pytree.tree_map_only(Tensor, Tensor.pin_memory, value)
