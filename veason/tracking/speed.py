"""What the tracker does to be fast."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

WORTH_COMPILING = 512  # pixels; below, a model runs faster than it compiles


@dataclass(frozen=True)
class Speed:
    """Each may be switched off to measure what it is worth; the figures are in docs/performance.md."""

    compile_encoder: bool = True  # torch.compile of the image encoder, block by block
    compile_steps: bool = True  # torch.compile of memory attention, mask heads and memory encoder
    narrow_values: bool = False  # memory attention over values in the memory's few channels, projected afterwards

    @classmethod
    def for_model(cls, model: nn.Module) -> Speed:
        """Compile large models on a GPU and nothing else."""
        worth = next(model.parameters()).is_cuda and model.image_size >= WORTH_COMPILING
        return cls(compile_encoder=worth, compile_steps=worth)
