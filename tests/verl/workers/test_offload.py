"""Tensors come back from the host as they went, from a buffer as large as they are."""

from __future__ import annotations

import pytest
import torch

from verl.workers.offload import ALIGNMENT, CPUOffloader


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 1000, 1000), (1025, 1025), (7,), (129, 1024)]
    return [torch.randn(size, generator=generator) for size in sizes]


@pytest.mark.parametrize("constant", [False, True])
def test_the_buffer_is_as_large_as_the_data_and_the_data_comes_back(constant: bool) -> None:
    made: list[int] = []

    def host(size: int) -> torch.Tensor:
        made.append(size)
        return torch.empty(size, dtype=torch.uint8)

    offloader = CPUOffloader(constant, host, device_type="cpu")
    held, expected = tensors(), tensors()
    view = held[0][1]
    data = sum(tensor.nbytes for tensor in held)
    for _ in range(3):
        offloader.offload([*held, view])
        assert offloader.offloaded and all(tensor.untyped_storage().nbytes() == 0 for tensor in held)
        offloader.load_to_device()
        assert not offloader.offloaded
        assert all(torch.equal(one, other) for one, other in zip(held, expected)) and torch.equal(view, expected[0][1])
    assert made == [offloader.buffer.numel()] and data <= made[0] <= data + ALIGNMENT * len(held)
    if not constant:
        held[2] += 1
        offloader.offload(held)
        offloader.load_to_device()
        assert torch.equal(held[2], expected[2] + 1)


def test_what_never_changes_is_copied_once() -> None:
    offloader = CPUOffloader(True, lambda size: torch.empty(size, dtype=torch.uint8), device_type="cpu")
    (held,) = [torch.ones(1000)]
    offloader.offload([held])
    offloader.load_to_device()
    held.fill_(2.0)  # which a constant tensor never is
    offloader.offload([held])
    offloader.load_to_device()
    assert torch.equal(held, torch.ones(1000))
