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
        token: per token of the language model, attention aside.
        pair: per (query, key) pair, over all layers.
        head: per response token, the output layer.
        patch: per image patch, attention inside windows included.
        patch_pair: per pair of patches of one image, for towers that attend over whole images.
        patch_size: side of a patch, in pixels.
    """

    token: float
    pair: float
    head: float
    patch: float
    patch_pair: float = 0.0
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
            token=self.token * language,
            pair=self.pair * 3,
            head=self.head * language,
            patch=self.patch * tower,
            patch_pair=self.patch_pair * tower,
        )

    def group(self, prompt: int, responses: Sequence[int], images: Sequence[tuple[int, int]]) -> float:
        """One pass over a packed group: tokens of prompt and responses, (height, width) of each image in pixels."""
        patches = [height * width // self.patch_size**2 for height, width in images]
        written = sum(responses)
        pairs = prompt * prompt / 2 + sum(length * prompt + length * length / 2 for length in responses)
        vision = self.patch * sum(patches) + self.patch_pair * sum(count * count for count in patches)
        return self.token * (prompt + written) + self.pair * pairs + self.head * written + vision
