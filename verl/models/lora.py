"""LoRA adapters (peft) in the policy: their layers, their weights, and the model's weights with the adapter merged.

peft initializes the adapter's weights and names them; `LoraLinear` computes the layer in fewer passes over memory.
At a width of 11,008 and rank 64, scaling and adding the adapter's part as separate kernels takes nearly as long as the
layer's own product.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

ADAPTER = "default"


@dataclass(frozen=True)
class LoraOptions:
    """The adapter's shape: W + (alpha / rank) B A on linear layers (arXiv 2106.09685).

    Attributes:
        rank, alpha: as above.
        target: a regular expression over full module names (`ModelFamily.lora_targets`).
        dropout: on the adapter's input, in train mode.
    """

    rank: int
    alpha: float
    target: str
    dropout: float = 0.0

    def peft_config(self) -> LoraConfig:
        """peft's own configuration, as written beside a saved adapter."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft takes any number
            lora_dropout=self.dropout,
            target_modules=self.target,
            task_type="CAUSAL_LM",
        )


def add_lora(model: nn.Module, options: LoraOptions) -> None:
    """Adds the adapter in place and freezes everything else. B starts at 0: the policy starts as the base.

    The adapter's weights are fp32 whatever the model's: they are trained in small steps.
    """
    model.requires_grad_(False)
    inject_adapter_in_model(options.peft_config(), model, adapter_name=ADAPTER)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        model.set_submodule(name, LoraLinear(layer))


class LoraLinear(nn.Module):
    """base_layer(x) + scaling * lora_B(lora_A(dropout(x))), holding the parts of peft's layer under the same names.

    Attributes:
        adapted: off, x passes the base layer alone.
        scaling: alpha / rank.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.base_layer, self.lora_A, self.lora_B = layer.base_layer, layer.lora_A.float(), layer.lora_B.float()
        self.dropout = layer.lora_dropout[ADAPTER]
        self.scaling: float = layer.scaling[ADAPTER]
        self.adapted = True

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] to [..., out_features]."""
        if not self.adapted:
            return self.base_layer(x)
        base, dropped = self.base_layer, self.dropout(x)
        down, up = (part[ADAPTER].weight.to(x.dtype) for part in (self.lora_A, self.lora_B))
        dropped = None if dropped is x else dropped
        return _LoraProduct.apply(x, dropped, base.weight, base.bias, down, up, self.scaling)


class _LoraProduct(torch.autograd.Function):
    """x W^T + bias + s (dropped A^T) B^T for a frozen W, the adapter's part added inside its product.

    `dropped` is x after dropout, None without dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        source = (x if dropped is None else dropped).flatten(0, -2)
        middle = source @ down.T
        output = F.linear(x, weight, bias)
        output.flatten(0, -2).addmm_(middle, up.T, alpha=scaling)
        ctx.save_for_backward(source, middle, weight, down, up)
        ctx.shared, ctx.scaling = dropped is None, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        source, middle, weight, down, up = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        grad_middle = (grad @ up).mul_(ctx.scaling)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            if ctx.shared:
                grad_x.addmm_(grad_middle, down)
            else:
                grad_dropped = (grad_middle @ down).unflatten(0, grads[0].shape[:-1])
            grad_x = grad_x.unflatten(0, grads[0].shape[:-1])
        return grad_x, grad_dropped, None, None, grad_middle.T @ source, (grad.T @ middle).mul_(ctx.scaling), None


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@contextmanager
def disable_adapter(model: nn.Module) -> Iterator[None]:
    """The base model inside the block: the reference policy of a LoRA run."""
    layers = lora_layers(model).values()
    try:
        for layer in layers:
            layer.adapted = False
        yield
    finally:
        for layer in layers:
            layer.adapted = True


def adapter_weights(model: nn.Module, gather: Callable[[Tensor], Tensor] = lambda weight: weight) -> dict[str, Tensor]:
    """The adapter under the names of a peft checkpoint (`adapter_model.safetensors`), one gathered tensor at a time.

    Args:
        gather: from a parameter to the full tensor, such as `DTensor.full_tensor`.
    """
    pattern = re.compile(rf"(.*\.lora_[AB])\.{ADAPTER}\.weight")
    found = ((pattern.fullmatch(name), weight) for name, weight in model.named_parameters())
    return {f"base_model.model.{match[1]}.weight": gather(weight.detach()) for match, weight in found if match}


def merged_weights(
    model: nn.Module, gather: Callable[[Tensor], Tensor] = lambda weight: weight
) -> Iterator[tuple[str, Tensor]]:
    """The model's parameters under its plain names with the adapter merged in, one at a time; without an adapter the
    parameters themselves. What an adapter changes is fp32: its changes are far below the last place of half precision.

    Args:
        gather: as in `adapter_weights`; a collective under FSDP2, so every rank has to go through the whole iterator.
    """
    adapted = lora_layers(model)
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if ".lora_" in name:
            continue
        weight = gather(parameter.detach())
        layer = adapted.get(owner.removesuffix(".base_layer"))
        if layer is not None and leaf == "weight":
            down, up = (gather(part[ADAPTER].weight.detach()).float() for part in (layer.lora_A, layer.lora_B))
            weight = torch.addmm(weight.float(), up, down, alpha=layer.scaling)
        yield name.replace(".base_layer.", "."), weight
