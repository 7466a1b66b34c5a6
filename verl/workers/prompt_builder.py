"""From chat messages and images to token ids and patches, once per prompt, by the checkpoint's own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor

from verl.models.families import ModelFamily, load_family
from verl.protocol import Example


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the actor takes it.

    Attributes:
        ids: int64 [P], one image token per visual token.
        pixel_values: [patches, channels * temporal_patch * patch * patch], on the CPU, pinned where a GPU will read it.
        image_grid_thw: int64 [images, 3].
        image_ranges: of each image, where its tokens start and how many they are.
    """

    ids: Tensor
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None
    image_ranges: tuple[tuple[int, int], ...] = ()


class PromptBuilder:
    """Wraps a checkpoint's processor: the chat template, the tokenizer and the image processor, each called once per
    prompt.

    Args:
        path: folder of the processor.
        min_pixels, max_pixels: bounds of the smart resizing; None keeps the checkpoint's.
        pin: keep the patches in pinned memory.
        dtype: of the patches; that of the computation, to which they would only be rounded later.
        family: of the model; by default that of the config.json at `path`.
    """

    def __init__(
        self,
        path: str,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        pin: bool = False,
        family: ModelFamily | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.family = family or load_family(path)
        self.pixel_bounds = self.family.pixel_bounds(min_pixels, max_pixels)
        self.processor: Any = AutoProcessor.from_pretrained(path, **self.pixel_bounds)
        self.tokenizer: Any = self.processor.tokenizer
        self.pin, self.dtype = pin, dtype
        self.image_token: int = self.tokenizer.convert_tokens_to_ids(self.family.image_token)
        self.patches_per_token = self.processor.image_processor.merge_size**2

    @property
    def forbidden_tokens(self) -> list[int]:
        """Ids of the image, video and vision-control tokens of this vocabulary."""
        vocabulary = self.tokenizer.get_vocab()
        return [vocabulary[token] for token in self.family.vision_tokens if token in vocabulary]

    def length(self, messages: Sequence[dict[str, Any]], image_sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens of the expanded prompt, from the (height, width) of each image; no pixel is read."""
        count = self.processor.image_processor.get_number_of_image_patches
        patches = sum(count(height, width) for height, width in image_sizes)
        return len(self._tokenize(messages)) - len(image_sizes) + patches // self.patches_per_token

    def raw_prompt_ids(self, example: Example) -> list[int]:
        """The prompt with one image token per image; a ValueError names a sample whose images do not match them."""
        ids = self._tokenize(example.messages)
        placeholders, images = ids.count(self.image_token), len(example.images)
        if placeholders != images:
            raise ValueError(f"{example.sample_id}: {placeholders} image placeholders for {images} images")
        return ids

    def build(self, example: Example) -> TokenizedPrompt:
        """The prompt with its images' patches. Raises as `raw_prompt_ids`."""
        raw = self.raw_prompt_ids(example)
        if not example.images:
            return TokenizedPrompt(torch.tensor(raw))
        features = self.processor.image_processor(images=list(example.images), return_tensors="pt")
        pixels, grid = features["pixel_values"].to(self.dtype), features["image_grid_thw"]
        ids, ranges = self._expand(raw, grid)
        return TokenizedPrompt(ids, pixels.pin_memory() if self.pin else pixels, grid, ranges)

    def response_ids(self, text: str) -> Tensor:
        """The ids of a target response, closed by the token that ends an assistant's turn."""
        return torch.tensor([*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id])

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _tokenize(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        text = self.processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _expand(self, raw: list[int], grid: Tensor) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """The ids with an image token per visual token, and the ranges of the images among them."""
        counts = iter((grid.prod(-1) // self.patches_per_token).tolist())
        expanded: list[int] = []
        ranges: list[tuple[int, int]] = []
        for token in raw:
            count = next(counts) if token == self.image_token else 1
            if token == self.image_token:
                ranges.append((len(expanded), count))
            expanded += [token] * count
        return torch.tensor(expanded), tuple(ranges)
