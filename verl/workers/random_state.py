"""The state of the random number generators of one rank, as tensors and JSON."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """torch's generators (the GPU's too where there is one) as uint8 tensors; Python's and numpy's as JSON."""
    tensors = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    state: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = state
    return tensors, {"python": random.getstate(), "numpy": [kind, keys.tolist(), *rest]}


def set_random_state(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Takes what `random_state` gave; JSON has made lists of its tuples."""
    version, keys, gauss = numbers["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, array, *rest = numbers["numpy"]
    np.random.set_state((kind, np.array(array, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)
