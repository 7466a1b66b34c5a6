"""Which parts of SAM 2 run under `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

MIN_COMPILED_SIZE = 512  # pixels; a smaller model runs faster than it compiles
# Hiera-large has eight shapes of block, each for several frames and for one; beyond the limit blocks stay eager.
RECOMPILE_LIMIT = 64


@dataclass(frozen=True)
class CompileOptions:
    """What is compiled: the image encoder by blocks, and the steps of memory and decoder (docs/performance.md)."""

    image_encoder: bool = True
    steps: bool = True

    @classmethod
    def for_model(cls, model: Any) -> CompileOptions:
        """Large models on a GPU are compiled, all others are not."""
        worthwhile = next(model.parameters()).is_cuda and model.image_size >= MIN_COMPILED_SIZE
        return cls(image_encoder=worthwhile, steps=worthwhile)


def configure_dynamo() -> None:
    """Set dynamo's limit of compilations, and have a compiled function run uncompiled while another thread compiles.

    Otherwise it raises then: PyTorch's mark of tracing is the process's. The settings are the thread's in newer
    versions of PyTorch (`torch/utils/_config_module.py`).
    """
    config = torch._dynamo.config
    if config.recompile_limit < RECOMPILE_LIMIT:
        config.recompile_limit = RECOMPILE_LIMIT
    if config.error_on_nested_fx_trace:
        config.error_on_nested_fx_trace = False


def compile_dynamic(call: Callable, backend: str = "inductor") -> Callable:
    """`torch.compile` of a function whose tensors change their leading size: one compilation for all sizes above 1."""
    inner = torch.compile(call, backend=backend)

    @wraps(call)
    def outer(*args: Any, **kwargs: Any) -> Any:
        configure_dynamo()
        for tensor in tree_leaves(args):
            if isinstance(tensor, torch.Tensor):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return inner(*args, **kwargs)

    return outer


def compile_blocks(blocks: Any) -> None:
    """Compile an encoder block by block: equal shapes share one compilation, a tenth of the time of the whole."""
    for block in blocks:
        block.forward = compile_dynamic(block.forward)
