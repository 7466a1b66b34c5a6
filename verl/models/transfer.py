"""Host tensors on their way to a GPU that goes on computing.

A copy from ordinary memory waits until the GPU has done all that was launched before it, and then the GPU waits for the
next launches. A copy from page-locked memory takes its turn among the launches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; the host does not wait for it."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def mapped(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """A dataclass with the function applied to every tensor in it, however deep; other values as they are."""
    if isinstance(value, Tensor):
        return function(value)  # type: ignore[return-value]
    if not is_dataclass(value):
        return value
    changed: dict[str, Any] = {field.name: mapped(getattr(value, field.name), function) for field in fields(value)}
    return replace(value, **changed)  # type: ignore[type-var]
