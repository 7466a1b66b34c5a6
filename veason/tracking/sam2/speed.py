"""What the tracker does to be fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

WORTH_COMPILING = 512  # pixels; below, a model runs faster than it compiles


@dataclass(frozen=True)
class Speed:
    """Each may be switched off to measure what it is worth; the figures are in docs/performance.md."""

    compile_encoder: bool = True  # torch.compile of the image encoder, block by block
    compile_steps: bool = True  # torch.compile of memory attention, mask heads and memory encoder

    @classmethod
    def for_model(cls, model: Any) -> Speed:
        """Compile large models on a GPU and nothing else."""
        worth = next(model.parameters()).is_cuda and model.image_size >= WORTH_COMPILING
        return cls(compile_encoder=worth, compile_steps=worth)


def compiled(call: Callable) -> Callable:
    """`torch.compile` a function of tensors whose leading size changes from call to call; one compilation serves all
    sizes above 1.
    """
    inner = torch.compile(call)

    @wraps(call)
    def outer(*args: Any) -> Any:
        for tensor in tree_leaves(args):
            if isinstance(tensor, torch.Tensor):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return inner(*args)

    return outer


def compile_blocks(blocks: Any) -> None:
    """Compile a trunk block by block: blocks of one shape share one compilation, a tenth of the time of compiling the
    whole.
    """
    # a large Hiera has eight shapes of block, once for several frames and once for one; beyond the limit blocks would
    # not be compiled
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for block in blocks:
        block.forward = compiled(block.forward)
