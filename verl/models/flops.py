"""Model FLOPs of packed groups (PaLM, arXiv 2204.02311, appendix B).

Counted is what the mathematics needs: a prompt once per group, its images once, attention over what a token may see;
recomputed activations are not. A matrix product takes 2 FLOPs per weight and token, its backward pass twice that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of a pass; a model family gives those of the forward pass.

    Attributes:
        per_token: of the language model, attention aside.
        per_attention_pair: per (query, key) pair, over all layers.
        per_label: per response token, the output layer.
        per_patch: per image patch, attention inside windows included.
        per_patch_attention_pair: per pair of patches of one image, for towers that attend over whole images.
        patch_size: side of a patch, in pixels.
    """

    per_token: float
    per_attention_pair: float
    per_label: float
    per_patch: float
    per_patch_attention_pair: float = 0.0
    patch_size: int = 14

    def with_backward(self, adapter: bool, vision: bool) -> ModelFlops:
        """Forward and backward pass together: 3 forward passes where weights are trained, 2 where gradients only flow
        through them, 1 where nothing behind them is trained.

        Args:
            adapter: a LoRA adapter is trained instead of the language model's own weights.
            vision: the vision tower is trained.
        """
        language, tower = 2.0 if adapter else 3.0, 3.0 if vision else 1.0
        return replace(
            self,
            per_token=self.per_token * language,
            per_attention_pair=self.per_attention_pair * 3,
            per_label=self.per_label * language,
            per_patch=self.per_patch * tower,
            per_patch_attention_pair=self.per_patch_attention_pair * tower,
        )

    def group_flops(self, prompt: int, responses: Sequence[int], images: Sequence[tuple[int, int]]) -> float:
        """One pass over a packed group: tokens of prompt and responses, (height, width) of each image in pixels."""
        patches = [height * width // self.patch_size**2 for height, width in images]
        written = sum(responses)
        pairs = prompt * prompt / 2 + sum(length * prompt + length * length / 2 for length in responses)
        vision = self.per_patch * sum(patches) + self.per_patch_attention_pair * sum(count * count for count in patches)
        return self.per_token * (prompt + written) + self.per_attention_pair * pairs + self.per_label * written + vision
