"""The policy's LoRA adapter in vLLM, beside the base model's weights instead of merged into them.

Merged into bf16 weights, changes below half a unit in the last place vanish: with a rank of 64 and a learning rate of
1e-5, 5 % of the change of log-probabilities survives the first step and 51 % a hundred. In fp32 nothing vanishes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from verl.models.lora import LoraOptions

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM has kernels
MEMORY = Path("/dev/shm")
PREFIX = "verl_adapter_"


def unmerged_adapter(lora: LoraOptions | None, device: str, dtype: torch.dtype) -> LoraOptions | None:
    """The adapter that an engine computes with beside its weights; None if the policy has none, or has to merge it.

    vLLM's LoRA kernels for CUDA take half precision alone (vllm/lora/ops/triton_ops/lora_shrink_op.py).
    """
    return None if device == "cuda" and dtype == torch.float32 else lora


def adapter_arguments(lora: LoraOptions, tower: bool) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for one adapter at a time.

    Args:
        tower: whether the vision tower's layers are adapted as well.
    """
    rank = next(rank for rank in VLLM_RANKS if rank >= lora.rank)
    arguments = {"enable_lora": True, "max_loras": 1, "max_cpu_loras": 1, "max_lora_rank": rank}
    return arguments | ({"enable_tower_connector_lora": True} if tower else {})


def load_lora_adapter(engine: Any, number: int, weights: Mapping[str, Tensor], lora: LoraOptions) -> LoRARequest:
    """Hands an adapter to the engine, in the place of the one before; returns what its requests have to name.

    vLLM reads adapters from folders: this one is in memory, and removed at once.

    Args:
        engine: `vllm.LLM.llm_engine`.
        number: of the adapter, from 1, another for every one.
        weights: under the names of a peft checkpoint.

    Raises:
        RuntimeError: the engine did not take it.
    """
    from vllm.lora.request import LoRARequest

    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}_", dir=memory) as folder:
        save_file(
            {name: weight.contiguous().cpu() for name, weight in weights.items()}, f"{folder}/adapter_model.safetensors"
        )
        lora.peft_config().save_pretrained(folder)
        request = LoRARequest(f"policy_{number}", number, folder)
        if not engine.add_lora(request):
            raise RuntimeError(f"vLLM did not take the adapter of rank {lora.rank}")
    return request


def remove_stale_adapters() -> None:
    """Removes the folders of processes that were killed while they handed an adapter over."""
    for folder in MEMORY.glob(f"{PREFIX}*"):
        process = folder.name.removeprefix(PREFIX).partition("_")[0]
        if not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)
