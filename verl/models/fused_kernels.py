"""What stands between the matrix products of a block, as single kernels on CUDA: norms, the gated activation, rotary
embeddings.

transformers computes each with a handful of element-wise kernels, which together take about a quarter of a training
pass in half precision. Pure functions of tensors are compiled, not the blocks: one compilation serves every layer,
whatever hooks sharding puts around it. The modules hold the parameters of those that they replace, under the same
names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn

# half-precision numbers in the 16 bytes that a matrix's rows have to start at for Hopper's and Ampere's fast kernels
ALIGNED_CHANNELS = 8
RECOMPILE_LIMIT = 64  # gradients on or off, dtypes, ranks and single-block batches each take one; dynamo's default is 8


def configure_dynamo() -> None:
    """Lets dynamo keep `RECOMPILE_LIMIT` variants of a function, and run a compiled function uncompiled while another
    thread compiles, such as the scorer's; otherwise it raises then, since PyTorch's mark of tracing is the process's.
    Newer versions of PyTorch keep these settings for each thread.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    config.error_on_nested_fx_trace = False


@cache
def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """torch.compile, once per function."""
    configure_dynamo()
    return torch.compile(function, **options)


def compile_on_cuda(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function whose first argument is a tensor where that is on CUDA; lengths are symbolic."""

    @wraps(function)
    def call(first: Tensor, *others: Any) -> Any:
        alone = first.is_cuda and not torch.compiler.is_compiling()  # inside a compiled layer it is part of that
        return (compiled(function, dynamic=True) if alone else function)(first, *others)

    return call


@compile_on_cuda
def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return F.silu(gate) * up


@compile_on_cuda
def apply_rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding of query and key [..., head_dim] in fp32; the two halves of the channels are paired."""

    def rotated(x: Tensor) -> Tensor:
        first, second = x.float().chunk(2, dim=-1)
        return (x.float() * cos.float() + torch.cat([-second, first], dim=-1) * sin.float()).to(x.dtype)

    return rotated(query), rotated(key)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), holding the projections of transformers' module.

    On a GPU zero channels are appended where their number is no multiple of `ALIGNED_CHANNELS` (3,420 in the vision
    tower of Qwen2.5-VL); they change nothing.
    """

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        projections = (self.gate_proj, self.up_proj, self.down_proj)
        plain = all(type(each) is nn.Linear for each in projections)
        if hidden_states.is_cuda and plain and self.gate_proj.out_features % ALIGNED_CHANNELS:
            return padded_gated_mlp(hidden_states, *projections)
        return self.down_proj(silu_mul(self.gate_proj(hidden_states), self.up_proj(hidden_states)))


def padded_gated_mlp(hidden_states: Tensor, gate_proj: nn.Linear, up_proj: nn.Linear, down_proj: nn.Linear) -> Tensor:
    """down(silu(gate(x)) * up(x)), zero channels inside up to a multiple of `ALIGNED_CHANNELS`."""
    spare = -gate_proj.out_features % ALIGNED_CHANNELS

    def padded(projection: nn.Linear) -> Tensor:
        bias = None if projection.bias is None else F.pad(projection.bias, (0, spare))
        return F.linear(hidden_states, F.pad(projection.weight, (0, 0, 0, spare)), bias)

    return F.linear(silu_mul(padded(gate_proj), padded(up_proj)), F.pad(down_proj.weight, (0, spare)), down_proj.bias)


def fused_rms_norm(norm: Any) -> nn.RMSNorm:
    """PyTorch's RMSNorm, one kernel each way, with the weight of transformers' module."""
    replacement = nn.RMSNorm(norm.weight.shape[0], eps=norm.variance_epsilon, device="meta")
    replacement.weight = norm.weight
    return replacement
