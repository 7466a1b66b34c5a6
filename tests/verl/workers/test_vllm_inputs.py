"""The images of a step, joined on the device, are what vLLM joins on the host."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm")


@pytest.mark.parametrize("images", [[6], [4, 8, 2]])
def test_patches_are_joined_in_the_order_of_the_images(images: list[int]) -> None:
    from vllm.multimodal.inputs import MultiModalFieldConfig

    from verl.workers.vllm_inputs import DeviceConcatField, patch_field

    sizes = torch.tensor(images)
    prompts = [torch.randn(sum(images), 5) for _ in range(2)]
    fields = [patch_field(sizes), MultiModalFieldConfig.flat_from_sizes("image", sizes)]
    ours, theirs = ([elem for each in prompts for elem in field.build_elems("pixels", each)] for field in fields)
    assert [len(elem.data) for elem in ours] == 2 * images and isinstance(ours[0].field, DeviceConcatField)
    joined = ours[0].field.reduce_data(ours, device="cpu", pin_memory=False)
    assert torch.equal(joined, theirs[0].field.reduce_data(theirs, device="cpu", pin_memory=False))
    assert torch.equal(joined, torch.cat(prompts))
