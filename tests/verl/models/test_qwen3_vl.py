"""Qwen3-VL: a packed sequence against plain transformers, what its parts contribute, FLOPs, and vLLM's buffers."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Qwen3VLConfig

from tests.verl.models.test_packed_policy import CASES, SQUARE, TALL, WIDE, compare
from tests.verl.models.tiny_qwen import IMAGE, random_group
from tests.verl.models.tiny_qwen3 import LORA_VISION, tiny_config, tiny_model
from verl.models.families import load_family
from verl.models.lora import LoraOptions, add_lora, merged_weights
from verl.models.packing import TokenizedGroup, pack_groups
from verl.models.policy_model import PolicyModel
from verl.models.qwen3_vl import Qwen3VL
from verl.models.qwen3_vl.vision_tower import make_vision_metadata

MIXED = [random_group([4, 9], [SQUARE, TALL, WIDE], 3), random_group([3, 3, 8], [], 4)]


@pytest.mark.parametrize("case", CASES)
def test_packed_sequence_equals_single_sequences(case: str) -> None:
    compare(CASES[case], "cpu", tiny_model())


def test_untied_output_layer() -> None:
    compare(CASES["a group of one"], "cpu", tiny_model(tied=False))


def test_compiled_layers_give_the_same() -> None:
    compare(MIXED, "cpu", tiny_model(), compiled="aot_eager")


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [None, "inductor"])
@pytest.mark.parametrize("case", CASES)
def test_packed_sequence_equals_single_sequences_on_cuda(case: str, compiled: str | None) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    compare(CASES[case], "cuda", tiny_model(), compiled=compiled)


@pytest.mark.gpu
def test_half_precision_on_cuda() -> None:
    """Vision heads of 72 channels, as in the tower of the 8B model, in variable-length attention."""
    config = tiny_config()
    config.vision_config.hidden_size = 144
    torch.manual_seed(0)
    exact = PolicyModel.from_config(config).cuda()
    half = PolicyModel.from_config(config, torch.bfloat16).cuda()
    half.load_state_dict(exact.state_dict())
    batch = pack_groups(MIXED, exact.family).to("cuda")
    with torch.no_grad():
        assert (half(batch).log_probs - exact(batch).log_probs).abs().mean() < 0.05


@pytest.mark.parametrize("part", ["deepstack", "learned positions", "query norm"])
def test_every_part_of_the_architecture_matters(part: str) -> None:
    """Without it the tests above would fail by far."""
    policy = PolicyModel(tiny_model())
    batch = pack_groups(MIXED, policy.family)
    with torch.no_grad():
        before = policy(batch).log_probs
        if part == "deepstack":
            policy.family = _WithoutDeepstack(policy.config)
        elif part == "learned positions":
            policy.model.model.visual.pos_embed.weight.zero_()
        else:
            policy.model.model.language_model.layers[0].self_attn.q_norm = nn.Identity()
        assert (policy(batch).log_probs - before).abs().max() > 1e-2


class _WithoutDeepstack(Qwen3VL):
    def encode_images(self, model: Any, pixel_values: torch.Tensor, plan: Any) -> tuple[torch.Tensor, list[Any]]:
        return super().encode_images(model, pixel_values, plan)[0], []


def test_text_alone_reaches_every_parameter() -> None:
    policy = PolicyModel(tiny_model())
    policy(pack_groups([random_group([4], [], 6)], policy.family)).log_probs.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())  # FSDP2 waits for all of them


def test_learned_positions_of_an_image() -> None:
    """An image of the grid's own size takes its entries; corners coincide; weights are those of a bilinear resize."""
    vision = tiny_config().vision_config
    plan = make_vision_metadata([(1, 6, 6)], vision)
    grid = torch.randn(36, 5)
    interpolated = (grid[plan.corners] * plan.weights[..., None]).sum(1)
    at = plan.rows_columns[:, 0] * 6 + plan.rows_columns[:, 1]
    torch.testing.assert_close(interpolated, grid[at], atol=1e-5, rtol=0)
    plan = make_vision_metadata([(1, 8, 4), (1, 2, 2)], vision)
    interpolated = (grid[plan.corners] * plan.weights[..., None]).sum(1)[:32]
    resized = nn.functional.interpolate(grid.T.view(1, 5, 6, 6), (8, 4), mode="bilinear", align_corners=True)[0]
    rows, columns = plan.rows_columns[:32].T
    torch.testing.assert_close(interpolated, resized[:, rows, columns].T, atol=1e-5, rtol=0)
    assert plan.images.cu_seqlens.tolist() == [0, 32, 36]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config": {"deepstack_visual_indexes": [1, 0]}}, "no ascending numbers"),
        ({"vision_config": {"num_position_embeddings": 35}}, "no square grid"),
        ({"text_config": {"num_hidden_layers": 1}}, "2 deepstack levels, but 1 language layers"),
        ({"text_config": {"hidden_act": "gelu"}}, "gated by silu"),
    ],
)
def test_configs_that_are_not_computed_are_refused(changes: dict[str, dict[str, Any]], message: str) -> None:
    config = tiny_config()
    for section, values in changes.items():
        for name, value in values.items():
            setattr(getattr(config, section), name, value)
    with pytest.raises(ValueError, match=message):
        PolicyModel.from_config(config, device="meta")


def test_an_image_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="1x7x4 patches does not divide"):
        make_vision_metadata([(1, 7, 4)], tiny_config().vision_config)


def test_positions_and_vision_tower_equal_transformers() -> None:
    model, grids = tiny_model(), [SQUARE, TALL, WIDE, (2, 6, 6)]
    group = random_group([3], grids, 1)
    types = (group.prompt_ids[None] == IMAGE).int()
    expected, delta = model.model.get_rope_index(
        group.prompt_ids[None], mm_token_type_ids=types, image_grid_thw=group.image_grid_thw
    )
    family = load_family(model.config)
    found, following = family.positions(group.prompt_ids, group.image_grid_thw)
    assert torch.equal(found, expected[:, 0]) and following == len(group.prompt_ids) + delta.item()
    with torch.no_grad():
        images = model.model.get_image_features(group.pixel_values, group.image_grid_thw)
        policy = PolicyModel(model)
        tokens, deepstack_features = family.encode_images(
            policy.model, group.pixel_values, family.make_vision_metadata(grids)
        )
    torch.testing.assert_close(tokens, torch.cat(images.pooler_output), atol=1e-5, rtol=1e-5)
    for features, theirs in zip(deepstack_features, images.deepstack_features, strict=True):
        torch.testing.assert_close(features, torch.cat(theirs), atol=1e-5, rtol=1e-5)


def test_merged_adapter_is_the_adapted_policy() -> None:
    policy, merged = PolicyModel(tiny_model()), tiny_model()
    target = f"{policy.family.lora_target_pattern}|{LORA_VISION}"
    add_lora(policy.model, LoraOptions(rank=4, alpha=8, target=target))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        merged.load_state_dict(dict(merged_weights(policy.model)), strict=False)
        batch = pack_groups(MIXED, policy.family)
        adapted, expected, base = (
            each(batch).log_probs for each in (policy, PolicyModel(merged), PolicyModel(tiny_model()))
        )
    torch.testing.assert_close(adapted, expected, atol=1e-5, rtol=0.0)
    assert (adapted - base).abs().max() > 1e-2


def test_lora_reaches_the_layers_of_both_parts() -> None:
    policy = PolicyModel(tiny_model())
    linear = [name for name, module in policy.model.named_modules() if isinstance(module, nn.Linear)]
    language = [name for name in linear if re.fullmatch(policy.family.lora_target_pattern, name)]
    vision = [name for name in linear if re.fullmatch(LORA_VISION, name)]
    assert len(language) == 3 * 7 and len(vision) == 3 * 4
    left = {name.split(".")[-3] for name in linear if name not in language + vision and name != "lm_head"}
    assert left <= {"model", "visual", "deepstack_merger_list"}


def test_flops_are_those_of_the_weights() -> None:
    """4B: 36 layers of 2,560 channels with 32 heads of 128, and a tower of 24 blocks of 1,024 channels."""
    text = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560}
    vision |= {"deepstack_visual_indexes": [5, 11, 17]}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    flops = load_family(config).flops()
    policy = PolicyModel.from_config(config, device="meta")
    layers = policy.family.language_model(policy.model).layers
    weights = sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2)
    assert flops.per_token == 2.0 * weights
    assert flops.per_attention_pair == 4.0 * 36 * 4096 and flops.per_label == 2.0 * 2560 * 151936
    tower = policy.family.vision_tower(policy.model)
    per_patch = sum(parameter.numel() for parameter in tower.blocks.parameters() if parameter.ndim == 2)
    mergers = [*tower.merger.parameters(), *tower.deepstack_merger_list.parameters()]
    per_unit = sum(parameter.numel() for parameter in mergers if parameter.ndim == 2)
    assert flops.per_patch == 2.0 * (per_patch + per_unit / 4)
    assert (flops.patch_size, flops.per_patch_attention_pair) == (16, 4.0 * 24 * 1024)
    # frames of 576 x 576: attention inside a frame is 0.16 of what a patch costs beside it
    assert 0.1 < flops.per_patch_attention_pair * 36**2 / flops.per_patch < 0.3


def test_waking_up_zeroes_the_deepstack_buffers() -> None:
    """After its deepest sleep vLLM's plain tensors hold whatever the memory holds."""
    model = SimpleNamespace(
        deepstack_input_embeds=[torch.full((4, 2), float("nan")) for _ in range(2)],
        deepstack_input_embeds_num_tokens=3,
    )
    buffers = list(model.deepstack_input_embeds)
    Qwen3VL(tiny_config()).after_wake_up(model)
    assert all(not buffer.any() for buffer in buffers)  # in place: CUDA graphs read them where they are
    assert model.deepstack_input_embeds_num_tokens == 0


def test_a_batch_without_responses_joins_the_pass() -> None:
    policy = PolicyModel(tiny_model())
    scores = policy(pack_groups([TokenizedGroup(torch.tensor([1]), [])], policy.family))
    assert scores.log_probs.shape == (0,)
