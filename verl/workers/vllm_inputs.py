"""Prompts in vLLM's own form, with the patches that the actor trains on: images are processed once.

vLLM joins the images of a step on the host, in new pinned memory: a second of a rollout of 16 prompts with six images
each. Here each is copied to the device, and they are joined there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.inputs.engine import mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalFieldElem,
    MultiModalFlatField,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from verl.workers.prompt_builder import TokenizedPrompt


class DeviceConcatField(MultiModalFlatField):
    """Images whose patches are rows of one tensor, pinned where a GPU will read it."""

    def reduce_data(
        self,
        elems: Sequence[MultiModalFieldElem],
        *,
        device: torch.types.Device = None,
        pin_memory: bool = False,
    ) -> Tensor:
        """The patches [patches, values] of all images, on `device`."""
        return torch.cat([elem.data.to(device or "cpu", non_blocking=True) for elem in elems])


def patch_field(patches: Tensor) -> MultiModalFieldConfig:
    """The field of a prompt's patches.

    Args:
        patches: int64 [images], how many each image has.
    """
    flat = MultiModalFieldConfig.flat_from_sizes("image", patches)
    return MultiModalFieldConfig(field=DeviceConcatField(slices=flat.field.slices), modality="image")


def engine_input(uid: int, prompt: TokenizedPrompt) -> Any:
    """A group's prompt. Its greedy and sampled responses share what the engine keeps under the names of its images."""
    ids = prompt.ids.tolist()
    if prompt.image_grid_thw is None:
        return tokens_input(ids)
    fields = {
        "pixel_values": patch_field(prompt.image_grid_thw.prod(-1)),
        "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    images = {"pixel_values": prompt.pixel_values, "image_grid_thw": prompt.image_grid_thw}
    items = MultiModalKwargsItems.from_hf_inputs(images, fields)  # type: ignore[arg-type]  # any mapping does
    ranges = [PlaceholderRange(start, length) for start, length in prompt.image_ranges]
    names = [f"{uid}/{number}" for number in range(len(ranges))]
    return mm_input(ids, items, {"image": names}, {"image": ranges})
