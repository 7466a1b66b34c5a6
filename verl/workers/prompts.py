"""From chat messages and images to token ids and patches, once per prompt, by the checkpoint's own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verl.protocol import Example

VISION_TOKENS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)  # what a policy must never write: an image token without an image breaks every later pass over the sequence


@dataclass(frozen=True)
class Prompt:
    """A prompt as the actor wants it.

    Attributes:
        ids: int64 [P], one `<|image_pad|>` per visual token.
        pixel_values: float32 [patches, channels * temporal_patch * patch * patch], on the CPU, pinned where a GPU will
            read it.
        image_grid_thw: int64 [images, 3].
    """

    ids: Tensor
    pixel_values: Tensor | None
    image_grid_thw: Tensor | None


class PromptBuilder:
    """Wraps a Qwen2.5-VL processor: the chat template, the tokenizer and the image processor, each called once per
    prompt.

    Args:
        path: folder of the processor.
        min_pixels, max_pixels: bounds of the smart resizing; None keeps the checkpoint's.
        pin: keep the patches in pinned memory.
    """

    def __init__(
        self, path: str, min_pixels: int | None = None, max_pixels: int | None = None, pin: bool = False
    ) -> None:
        from transformers import AutoProcessor

        bounds = {
            name: value for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if value is not None
        }
        self.processor: Any = AutoProcessor.from_pretrained(path, **bounds)
        self.tokenizer: Any = self.processor.tokenizer
        self.pin = pin
        self.image_token: int = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.units = self.processor.image_processor.merge_size**2

    @property
    def forbidden_tokens(self) -> list[int]:
        """Ids of the image, video and vision-control tokens of this vocabulary."""
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[token] for token in VISION_TOKENS if token in vocabulary]

    def length(self, messages: Sequence[dict[str, Any]], image_sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens of the expanded prompt, from the (height, width) of each image; no pixel is read."""
        patches = sum(
            self.processor.image_processor.get_number_of_image_patches(height, width) for height, width in image_sizes
        )
        return len(self._tokenize(messages)) - len(image_sizes) + patches // self.units

    def bare_ids(self, example: Example) -> list[int]:
        """The prompt with one `<|image_pad|>` per image, for vLLM. Raises ValueError, naming the sample, where they do
        not match.
        """
        bare = self._tokenize(example.messages)
        if bare.count(self.image_token) != len(example.images):
            raise ValueError(
                f"{example.sample_id}: {bare.count(self.image_token)} image placeholders for {len(example.images)} "
                "images"
            )
        return bare

    def build(self, example: Example) -> Prompt:
        """The prompt with its images' patches. Raises as `bare_ids`."""
        bare = self.bare_ids(example)
        if not example.images:
            return Prompt(torch.tensor(bare), None, None)
        features = self.processor.image_processor(images=list(example.images), return_tensors="pt")
        pixels, grid = features["pixel_values"].float(), features["image_grid_thw"]
        return Prompt(self._expand(bare, grid), pixels.pin_memory() if self.pin else pixels, grid)

    def response_ids(self, text: str) -> Tensor:
        """The ids of a target response, closed by the token that ends an assistant's turn."""
        return torch.tensor([*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id])

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _tokenize(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        text = self.processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _expand(self, bare: list[int], grid: Tensor) -> Tensor:
        counts = iter((grid.prod(-1) // self.units).tolist())
        return torch.tensor(
            [
                token
                for bare_token in bare
                for token in [bare_token] * (next(counts) if bare_token == self.image_token else 1)
            ]
        )
