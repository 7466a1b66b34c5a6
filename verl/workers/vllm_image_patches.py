"""The patches of images as vLLM's encoder step takes them: copied to the device one by one, and joined there.

vLLM joins the images of a step on the host first, in new pinned memory: a second of a rollout of 16 prompts with six
images each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalFieldElem, MultiModalFlatField


class PatchField(MultiModalFlatField):
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
    return MultiModalFieldConfig(field=PatchField(slices=flat.field.slices), modality="image")
