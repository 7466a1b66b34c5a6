"""Low-rank adapters (peft) inside the policy, and what leaves it: the adapter alone, or weights with the adapter merged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

ADAPTER = "default"
LANGUAGE = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
VISION = r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"


@dataclass(frozen=True)
class LoraOptions:
    """The adapter's shape: W + (alpha / rank) B A on the language model's linear layers (arXiv 2106.09685).

    Attributes:
        rank, alpha: as above; dropout: on the adapter's input, in train mode.
        vision: adapt the vision tower's linear layers too.
        target: a regular expression over full module names that replaces the choice above.
    """

    rank: int
    alpha: int = 32
    dropout: float = 0.0
    vision: bool = False
    target: str | None = None

    def config(self) -> LoraConfig:
        """peft's own configuration, as written beside a saved adapter."""
        target = self.target or (f"{LANGUAGE}|{VISION}" if self.vision else LANGUAGE)
        return LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=target, task_type="CAUSAL_LM")


def add_lora(model: nn.Module, options: LoraOptions) -> None:
    """Puts the adapter into the model in place and freezes everything else. B starts at 0, so the policy starts as the base."""
    model.requires_grad_(False)
    inject_adapter_in_model(options.config(), model, adapter_name=ADAPTER)


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """peft's `LoraLayer`s by name; each holds its own `base_layer`, `lora_A` and `lora_B`."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The base model inside the block: the reference policy of a LoRA run.

    peft's own switch also turns `requires_grad` off and on. FSDP2 would keep "off" for good on parameters that it gathers for the
    first time inside, so only the layers' flag is set.
    """
    layers = lora_layers(model).values()
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def adapter_weights(model: nn.Module, gather: Callable[[Tensor], Tensor] = lambda weight: weight) -> dict[str, Tensor]:
    """The adapter under the names of a peft checkpoint (`adapter_model.safetensors`), one gathered tensor at a time.

    Args:
        gather: from a parameter to the full tensor, such as `DTensor.full_tensor`.
    """
    pattern = re.compile(rf"(.*\.lora_[AB])\.{ADAPTER}\.weight")
    found = ((pattern.fullmatch(name), weight) for name, weight in model.named_parameters())
    return {f"base_model.model.{match[1]}.weight": gather(weight.detach()) for match, weight in found if match}


def merged_weights(model: nn.Module, gather: Callable[[Tensor], Tensor] = lambda weight: weight) -> Iterator[tuple[str, Tensor]]:
    """The model's parameters under its plain names with the adapter merged in, one at a time; without an adapter the parameters themselves.

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
            weight = torch.addmm(weight.float(), up, down, alpha=layer.scaling[ADAPTER]).to(weight.dtype)
        yield name.replace(".base_layer.", "."), weight
