"""What stands between the matrix products of a block, as single kernels on CUDA: norms, the gated activation, rotary embeddings.

transformers writes each as a handful of element-wise kernels, which together take about a quarter of a training pass in half precision.
Compiled are pure functions of tensors, not the blocks: one compilation serves every layer, whatever hooks sharding puts around it.
The modules hold the parameters of those that they stand for, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn

CACHE_ENTRIES = 64  # gradients on or off, dtypes, ranks and single-block rows each take one; dynamo's default is 8


@cache
def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """torch.compile, once per function."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, CACHE_ENTRIES)
    return torch.compile(function, **options)


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that is compiled where they are on CUDA; lengths are symbolic."""

    @wraps(function)
    def call(first: Tensor, *others: Tensor) -> Any:
        return (compiled(function, dynamic=True) if first.is_cuda else function)(first, *others)

    return call


@fused
def gate(activated: Tensor, linear: Tensor) -> Tensor:
    """silu(activated) * linear."""
    return nn.functional.silu(activated) * linear


@fused
def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding of query and key [..., head_dim]: the first half of the channels pairs with the second. Summed in fp32."""

    def turned(x: Tensor) -> Tensor:
        first, second = x.float().chunk(2, dim=-1)
        return (x.float() * cos.float() + torch.cat([-second, first], dim=-1) * sin.float()).to(x.dtype)

    return turned(query), turned(key)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), holding the projections of transformers' module."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(gate(self.gate_proj(hidden_states), self.up_proj(hidden_states)))


def torch_norm(norm: Any) -> nn.RMSNorm:
    """PyTorch's RMSNorm, one kernel each way, with the weight of transformers' module."""
    replacement = nn.RMSNorm(norm.weight.shape[0], eps=norm.variance_epsilon, device="meta")
    replacement.weight = norm.weight
    return replacement
