"""The pieces of the packed forward pass, each against a plain reference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils import _pytree as pytree

from tests.verl.models.tiny_qwen import (
    FAMILY,
    IMAGE,
    LORA_LANGUAGE_AND_VISION,
    VIDEO,
    alone,
    random_group,
    tiny_config,
    tiny_model,
)
from verl.models import attention
from verl.models.attention import block_mask, count_pairs, packed_mask
from verl.models.families import load_family
from verl.models.fused_kernels import GatedMLP, padded_gated_mlp
from verl.models.log_probs import token_log_probs
from verl.models.lora import LoraOptions, adapter_weights, add_lora, merged_weights
from verl.models.packing import PackedBatch, TokenizedGroup, first_fit_decreasing, pack_groups
from verl.models.policy_model import PolicyModel, load_policy

CONFIG = tiny_config()
GRIDS = [(1, 8, 8), (2, 6, 10), (1, 2, 14), (1, 8, 4)]


def test_positions_equal_transformers() -> None:
    group = random_group([3], GRIDS, 0)
    ids = group.prompt_ids[None]
    expected, delta = tiny_model().model.get_rope_index(
        ids, mm_token_type_ids=(ids == IMAGE).int(), image_grid_thw=group.image_grid_thw
    )
    found, following = FAMILY.positions(group.prompt_ids, group.image_grid_thw)
    assert torch.equal(found, expected[:, 0])
    assert following == len(group.prompt_ids) + delta.item()


def test_vision_tower_equals_transformers() -> None:
    group = random_group([3], GRIDS, 1)
    model = tiny_model()
    with torch.no_grad():
        expected = torch.cat(model.model.get_image_features(group.pixel_values, group.image_grid_thw).pooler_output)
        policy = PolicyModel(model)
        found, deepstack_features = policy.family.encode_images(
            policy.model, group.pixel_values, FAMILY.make_vision_metadata(GRIDS)
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert deepstack_features == []


def test_zero_channels_change_nothing() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 27), torch.nn.Linear(16, 27), torch.nn.Linear(27, 16)]
    plain = SimpleNamespace(gate_proj=layers[0], up_proj=layers[1], down_proj=layers[2])
    inputs, direction = torch.randn(5, 16), torch.randn(5, 16)
    results = []
    for output in (GatedMLP(plain)(inputs), padded_gated_mlp(inputs, *layers)):
        gradients = torch.autograd.grad(
            (output * direction).sum(), [weight for layer in layers for weight in layer.parameters()]
        )
        results.append([output, *gradients])
    torch.testing.assert_close(*results)


def dense_mask(batch: PackedBatch) -> torch.Tensor:
    """By definition, bool [L, L]: a token (row) sees its own segment up to itself, and its group's prompt."""
    causal = torch.ones(len(batch.segment_ids), len(batch.segment_ids), dtype=torch.bool).tril()
    return causal & (
        (batch.segment_ids[:, None] == batch.segment_ids) | (batch.prompt_segment_ids[:, None] == batch.segment_ids)
    )


def tensors_of(value: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def test_every_tensor_of_a_packed_batch_is_taken_along() -> None:
    batch = pack_groups([random_group([3, 5], GRIDS, 2)], FAMILY)
    assert batch.vision_metadata.windows.padding is not None and len(tensors_of(batch)) == 19
    other = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor + 1, batch)
    assert all(torch.equal(a + 1, b) for a, b in zip(tensors_of(batch), tensors_of(other), strict=True))
    assert (other.segments, other.lengths) == (batch.segments, batch.lengths)
    assert type(other.segments[0]) is type(batch.segments[0])


@pytest.mark.gpu
def test_packed_batches_go_to_the_gpu_from_pinned_memory() -> None:
    batch = pack_groups([random_group([3, 5], GRIDS, 2)], FAMILY)
    pinned = batch.pinned()
    assert all(tensor.is_pinned() for tensor in tensors_of(pinned))
    for there in (batch.to("cuda"), pinned.to("cuda")):
        assert all(
            b.is_cuda and torch.equal(a, b.cpu()) for a, b in zip(tensors_of(batch), tensors_of(there), strict=True)
        )


@pytest.mark.parametrize("multiple", [1, 128])
def test_block_mask_equals_the_dense_mask(multiple: int) -> None:
    groups = [random_group([200, 1, 300, 0, 90], [(1, 16, 16)], 2, text=60), random_group([140], [], 3, text=300)]
    batch = pack_groups(groups, FAMILY, multiple=multiple)
    dense = dense_mask(batch)
    length = len(batch.segment_ids)

    blocks = -(-length // 128)
    padded = torch.zeros(blocks * 128, blocks * 128, dtype=torch.bool)
    padded[:length, :length] = dense
    assert torch.equal(count_pairs(batch.segments, length), padded.view(blocks, 128, blocks, 128).sum(dim=(1, 3)))

    mask = block_mask(batch.segments, batch.segment_ids, batch.prompt_segment_ids)
    reference = create_block_mask(mask.mask_mod, None, None, length, length, device="cpu")
    assert torch.equal(mask.to_dense(), reference.to_dense())
    for ours, theirs in (
        (mask.kv_num_blocks, reference.kv_num_blocks),
        (mask.full_kv_num_blocks, reference.full_kv_num_blocks),
    ):
        assert torch.equal(ours, theirs)


def dense_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    heads_first = (each.transpose(0, 1)[None] for each in (query, key, value))
    output = F.scaled_dot_product_attention(*heads_first, attn_mask=dense_mask(batch), enable_gqa=True)
    return output[0].transpose(0, 1)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_attention_by_segments_and_flex_attention_equal_the_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "compiled", lambda function, **_: function)
    groups = [random_group([70, 1, 0, 130], [(1, 8, 8)], 2, text=60), random_group([40], [], 3)]
    batch = pack_groups(groups, FAMILY, multiple=128)
    tensors = [torch.randn(len(batch.segment_ids), heads, 32, requires_grad=True) for heads in (4, 2, 2)]
    expected = dense_attention(*tensors, batch)
    direction = torch.randn_like(expected)
    segments = attention.packed_attention(*tensors, packed_mask(batch, torch.float32))
    torch.testing.assert_close(segments, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((output * direction).sum(), tensors) for output in (segments, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    detached = (tensor.detach() for tensor in tensors)  # the CPU has no backward pass of it
    flex = attention.packed_attention(
        *detached, block_mask(batch.segments, batch.segment_ids, batch.prompt_segment_ids)
    )
    torch.testing.assert_close(flex, expected, atol=1e-5, rtol=1e-5)


def test_attention_with_norms_of_queries_and_keys() -> None:
    torch.manual_seed(0)
    layers = {name: torch.nn.Linear(24, 32, bias=False) for name in ("q_proj", "k_proj", "v_proj")}
    norms = {
        name: SimpleNamespace(weight=torch.nn.Parameter(torch.randn(8)), variance_epsilon=1e-6)
        for name in ("q_norm", "k_norm")
    }
    plain = SimpleNamespace(**layers, o_proj=torch.nn.Identity(), head_dim=8)
    hidden, unturned = torch.randn(1, 5, 24), (torch.ones(1, 5, 8), torch.zeros(1, 5, 8))
    segment = (attention.Segment(0, 5, 0, 0),)
    query, key, value = (layer(hidden).unflatten(-1, (4, 8)) for layer in layers.values())
    query, key = (F.rms_norm(x, (8,), norms[name].weight, 1e-6) for x, name in ((query, "q_norm"), (key, "k_norm")))
    expected = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)), is_causal=True)
    found, _ = attention.PackedAttention(SimpleNamespace(**vars(plain), **norms))(hidden, unturned, segment)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2))
    assert not torch.allclose(found, attention.PackedAttention(plain)(hidden, unturned, segment)[0])


def test_pixels_of_a_visual_token() -> None:
    assert FAMILY.pixel_multiple == 8 and load_family(type(CONFIG)()).pixel_multiple == 28


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_entropy_by_chunks(temperature: float) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels, mix = torch.randint(0, 50, (23,)), torch.randn(2, 23)
    found, entropy, self_certainty = token_log_probs(
        hidden, weight, labels, temperature, entropy=True, self_certainty=True, chunk=5
    )
    distribution = torch.distributions.Categorical(logits=hidden @ weight.T / temperature)
    expected = torch.stack([distribution.log_prob(labels), distribution.entropy()])
    torch.testing.assert_close(torch.stack([found, entropy]), expected)
    torch.testing.assert_close(self_certainty, -distribution.logits.mean(-1).detach())
    ours = torch.autograd.grad((torch.stack([found, entropy]) * mix).sum(), (hidden, weight))
    theirs = torch.autograd.grad((expected * mix).sum(), (hidden, weight))
    torch.testing.assert_close(ours, theirs)


def test_predictors_and_labels() -> None:
    groups = [
        TokenizedGroup(torch.tensor([5, 6, 7]), [torch.tensor([1, 2]), torch.tensor([3])]),
        TokenizedGroup(torch.tensor([8]), [torch.tensor([4, 9])]),
    ]
    batch = pack_groups(groups, FAMILY, multiple=8)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 1, 2, 3, 4, 9, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.position_ids[0, 0, :9].tolist() == [0, 1, 2, 0, 3, 4, 3, 1, 2]
    assert batch.logit_positions.tolist() == [2, 4, 2, 3, 7]
    assert batch.labels.tolist() == [1, 2, 3, 4, 9]
    assert batch.lengths == (2, 1, 2)
    assert [part.tolist() for part in batch.split(batch.labels)] == [[1, 2], [3], [4, 9]]


def test_micro_batches_hold_whole_groups_within_the_budget() -> None:
    assert first_fit_decreasing([5, 9, 4, 30, 1], budget=10) == [[0, 2], [1, 4], [3]]


@pytest.mark.parametrize(
    ("prompt", "grids", "message"),
    [
        ([1, IMAGE], [(1, 4, 4)], "holds 1 image tokens"),
        ([1, IMAGE], [], "holds 1 image"),
        ([VIDEO], [], "video"),
        ([], [], "empty prompt"),
    ],
)
def test_prompts_that_do_not_match_their_images(
    prompt: list[int], grids: list[tuple[int, int, int]], message: str
) -> None:
    pixels = torch.zeros(sum(t * h * w for t, h, w in grids), 96) if grids else None
    group = TokenizedGroup(torch.tensor(prompt), [torch.tensor([1])], pixels, torch.tensor(grids) if grids else None)
    with pytest.raises(ValueError, match=message):
        pack_groups([group], FAMILY)


def test_merged_adapter_is_the_adapted_policy() -> None:
    policy = PolicyModel(tiny_model())
    add_lora(policy.model, LoraOptions(rank=4, alpha=8, target=LORA_LANGUAGE_AND_VISION))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    merged = tiny_model()
    assert set(adapter_weights(policy.model)) == {
        "base_model.model." + name.replace(".default", "")
        for name, _ in policy.model.named_parameters()
        if "lora_" in name
    }
    report = merged.load_state_dict(dict(merged_weights(policy.model)), strict=False)
    assert not report.unexpected_keys
    assert report.missing_keys == ["lm_head.weight"]  # tied
    group = random_group([4, 6], [(1, 8, 8)], 4)
    with torch.no_grad():
        found = policy(pack_groups([group], FAMILY)).log_probs
        torch.testing.assert_close(found, torch.cat(alone(merged, group, 60)), atol=1e-5, rtol=0.0)


def test_checkpoint_folder(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    policy = load_policy(tmp_path, lora=LoraOptions(2, 32, FAMILY.lora_target_pattern), freeze_vision=True)
    group = random_group([4, 6], [(1, 8, 8)], 4)
    scores = policy(pack_groups([group], policy.family))
    with torch.no_grad():
        torch.testing.assert_close(scores.log_probs, torch.cat(alone(model, group, 60)), atol=1e-5, rtol=0.0)
    scores.log_probs.sum().backward()
    assert {name.split(".")[-3] for name, p in policy.named_parameters() if p.grad is not None} == {"lora_A", "lora_B"}
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_policy(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match="no model family for model_type 'qwen2'; known: qwen2_5_vl, qwen3_vl"):
        load_policy(tmp_path)


def test_shapes_without_memory() -> None:
    policy = PolicyModel.from_config(CONFIG, device="meta")
    assert all(parameter.is_meta for parameter in policy.parameters())
    assert len(policy.blocks()) == CONFIG.vision_config.depth + CONFIG.text_config.num_hidden_layers
