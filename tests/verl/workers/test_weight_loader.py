"""Recorded copies load as the loader does: fused, sharded and padded parameters; what cannot be repeated is refused."""

import pytest
import torch
from torch import nn

from verl.workers.weight_loader import CachedWeightLoader

RANK = 1  # of two that share the model


class Model(nn.Module):
    """As in vLLM: q and k in one parameter, each rank half of the rows, a vocabulary padded to eight rows."""

    def __init__(self):
        super().__init__()
        self.qk = nn.Parameter(torch.full((4, 3), float("nan")))
        self.vocabulary = nn.Parameter(torch.full((8, 3), float("nan")), requires_grad=False)
        self.down = nn.Parameter(torch.full((3, 2), float("nan")))

    def load_weights(self, weights):
        for name, full in weights:
            if name in ("q", "k"):
                self.qk.data.narrow(0, 2 * "qk".index(name), 2).copy_(full.narrow(0, 2 * RANK, 2))
            elif name == "down":
                self.down.data.copy_(full[:, 2 * RANK : 2 * RANK + 2])
            else:
                self.vocabulary[: len(full)].data.copy_(full)
                self.vocabulary[len(full) :].data.fill_(0)


def make_weights(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q": (4, 3), "k": (4, 3), "down": (3, 4), "vocabulary": (6, 3)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def record(model, weights):
    return CachedWeightLoader.record(model.load_weights, weights.items(), model.parameters())


def test_recorded_copies_are_the_loaders():
    model, expected = Model(), Model()
    copies = record(model, make_weights(0))
    expected.load_weights(make_weights(0).items())
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))  # as after a sleep
    new = make_weights(1)
    new["q"], new["down"] = (
        new["q"].t().contiguous().t(),
        torch.cat([new["down"], new["down"]])[3:],
    )  # other strides, another offset
    copies.load(new.items())
    expected.load_weights(new.items())
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert addresses == [parameter.data_ptr() for parameter in model.parameters()]


def test_other_tensors_are_refused():
    copies = record(Model(), make_weights(0))
    few, strange = make_weights(1), make_weights(1)
    del few["k"]
    strange["bias"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="no weights came for k, 1 in all"):
        copies.load(few.items())
    with pytest.raises(RuntimeError, match="bias was not recorded"):
        copies.load(strange.items())
    with pytest.raises(RuntimeError, match="or comes twice"):
        copies.load([*make_weights(1).items(), ("q", torch.zeros(4, 3))])


def test_a_loader_that_does_more_than_copying_is_refused():
    class Computes(Model):
        def load_weights(self, weights):
            super().load_weights((name, full * 2 if name == "k" else full) for name, full in weights)

    class Finishes(Model):
        def load_weights(self, weights):
            super().load_weights(weights)
            self.down.data.copy_(self.down + 1)

    class Forgets(Model):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(5))

    class Leaves(Model):
        def load_weights(self, weights):
            super().load_weights((name, full) for name, full in weights if name != "down")

    with pytest.raises(RuntimeError, match="computes with k"):
        record(Computes(), make_weights(0))
    with pytest.raises(RuntimeError, match="1 copies that belong to no tensor"):
        record(Finishes(), make_weights(0))
    with pytest.raises(RuntimeError, match="copies nothing of down"):
        record(Leaves(), make_weights(0))
    with pytest.raises(RuntimeError, match="writes 42 elements of 47"):
        record(Forgets(), make_weights(0))
