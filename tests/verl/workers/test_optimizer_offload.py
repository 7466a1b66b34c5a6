"""Moments that wait on the host: steps to the bit, one chunk at a time, and saved and loaded from there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from verl.workers.offload import CPUOffloader
from verl.workers.optimizer_offload import MOMENTS, OptimizerOffloader

SIZES = [(64, 8), (8,), (256, 8), (16, 4), (4, 8), (1,)]
CHUNK = 2 * 4 * 64 * 9  # bytes: the moments of the first two parameters


class HostOffloader(CPUOffloader):
    """Offloads CPU tensors, and records the most bytes of a chunk."""

    most = 0

    def __init__(self) -> None:
        super().__init__(False, lambda size: torch.empty(size, dtype=torch.uint8), device_type="cpu")

    def offload(self, tensors, empty_cache=True):  # type: ignore[no-untyped-def]
        assert not empty_cache
        HostOffloader.most = max(HostOffloader.most, sum(tensor.nbytes for tensor in tensors))
        super().offload(tensors, empty_cache)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in SIZES]


def take_step(trained: list[nn.Parameter], stepper: AdamW | OptimizerOffloader, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in trained[: len(trained) - (number == 0)]:  # the last one has no gradient at first
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    stepper.step()


@pytest.fixture
def pair() -> tuple[list[nn.Parameter], AdamW, OptimizerOffloader]:
    trained = parameters()
    optimizer = AdamW(trained, lr=0.1, weight_decay=0.01)
    return trained, optimizer, OptimizerOffloader(optimizer, CHUNK, HostOffloader)


def test_steps_in_chunks_equal_whole_ones(pair: tuple[list[nn.Parameter], AdamW, OptimizerOffloader]) -> None:
    trained, optimizer, offloader = pair
    others = parameters()
    whole = AdamW(others, lr=0.1, weight_decay=0.01)
    HostOffloader.most = 0
    for number in range(4):
        take_step(trained, offloader, number)
        take_step(others, whole, number)
        moments = [state[moment] for state in optimizer.state.values() for moment in MOMENTS]
        assert all(moment.untyped_storage().nbytes() == 0 for moment in moments)
    assert all(torch.equal(one, other) for one, other in zip(trained, others, strict=True))
    assert optimizer.param_groups[0]["params"] == trained
    for one, other in zip(trained, others):
        for moment in MOMENTS:
            assert torch.equal(offloader.read(optimizer.state[one][moment]), whole.state[other][moment])
    largest = 2 * 4 * 256 * 8  # one parameter is larger than a chunk
    assert largest == HostOffloader.most and [len(chunk) for chunk, _ in offloader._chunks] == [2, 1, 3]


def test_moments_of_a_checkpoint_replace_those_on_the_host(
    pair: tuple[list[nn.Parameter], AdamW, OptimizerOffloader],
) -> None:
    trained, optimizer, offloader = pair
    for number in range(2):
        take_step(trained, offloader, number)
    others = parameters()
    resumed = AdamW(others, lr=0.1, weight_decay=0.01)
    target = OptimizerOffloader(resumed, CHUNK, HostOffloader)
    take_step(others, target, 7)  # has moments of its own
    with torch.no_grad():
        for one, other in zip(trained, others):
            other.copy_(one)
            state = optimizer.state[one]
            moments = {moment: offloader.read(state[moment]).clone() for moment in MOMENTS}
            resumed.state[other] = {"step": state["step"].clone(), **moments}
            target.moments_loaded(other)
            first = target._chunks[0][1]
            assert first.offloaded == (other is not others[0])  # a chunk leaves when it is whole
    for number in range(2, 4):
        take_step(trained, offloader, number)
        take_step(others, target, number)
    assert all(torch.equal(one, other) for one, other in zip(trained, others, strict=True))


def test_what_is_not_offloaded_is_read_where_it_is(pair: tuple[list[nn.Parameter], AdamW, OptimizerOffloader]) -> None:
    trained, _, offloader = pair
    assert offloader.read(trained[0].detach()).data_ptr() == trained[0].data_ptr()
