"""The tiny policy: a checkpoint folder with Qwen2.5-VL's files, tokens and template."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize, qwen2_5_config, rope_sections


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    write_policy(path, PolicySize(hidden_size=64, heads=2, kv_heads=1, intermediate_size=96), seed=0)
    return path


def test_transformers_loads_it_and_it_answers_about_pictures(folder):
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(folder)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (84, 112, 3), dtype=np.uint8)) for _ in range(2)]
    content = [
        {"type": "text", "text": "(0s)"},
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": "the red square"},
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[text], images=pictures, return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 8]] * 2
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 2 * 12  # a token for 2 x 2 patches
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert out.shape[1] == inputs["input_ids"].shape[1] + 4


def test_tokens_digits_alone_tags_spelt_specials_whole(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for special in (
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<|endoftext|>",
    ):
        assert len(tokenizer(special).input_ids) == 1
    assert [token for token in tokenizer.tokenize("at 123") if token.isdigit()] == ["1", "2", "3"]
    assert len(tokenizer.tokenize("<think>")) > 1 and len(tokenizer.tokenize("</answer>")) > 1
    for text in (
        '<answer>{"keyframe_timestamp": 12, "bbox_2d_list": [[1, 2, 3, 4]]}</answer>',
        "ü 東\t\n  x",
        "The plain red star never moves.",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"


def test_the_chat_template_writes_what_qwen_writes(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "one "}, {"type": "image"}, {"type": "text", "text": " two"}],
        },
        {"role": "assistant", "content": "three"},
    ]
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    user = f"<|im_start|>user\none {picture} two<|im_end|>\n"
    write = tokenizer.apply_chat_template
    assert write(turns[:1], tokenize=False, add_generation_prompt=True) == f"{system}{user}<|im_start|>assistant\n"
    assert write(turns, tokenize=False) == f"{system}{user}<|im_start|>assistant\nthree<|im_end|>\n"
    own = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, turns[0]]
    assert write(own, tokenize=False) == f"<|im_start|>system\nBe brief.<|im_end|>\n{user}"
    assert "Picture 1: " + picture in write(turns[:1], tokenize=False, add_vision_id=True)


def test_one_seed_gives_one_policy_and_leaves_the_callers_chance_alone(tmp_path, folder):
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    again = write_policy(tmp_path, PolicySize(hidden_size=64, heads=2, kv_heads=1, intermediate_size=96), seed=0)
    assert torch.rand(1) == before
    first = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_vision_mixes_windows_and_full_attention_and_rows_are_padded(folder):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    vision = model.config.vision_config
    assert vision.fullatt_block_indexes == [1] and vision.depth == 2
    assert model.config.text_config.vocab_size % 64 == 0
    assert model.config.text_config.vocab_size > len(AutoTokenizer.from_pretrained(folder))
    assert rope_sections(128, 6) == [16, 24, 24] and sum(rope_sections(32, 6)) == 16
    size = PolicySize(rope_theta=1000.0, rope_sections=(2, 3, 11))
    rope = qwen2_5_config(size, AutoTokenizer.from_pretrained(folder)).text_config.rope_parameters
    assert (rope["rope_theta"], rope["mrope_section"]) == (1000.0, [2, 3, 11])


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"hidden_size": 64}, "below 32"),
        ({"hidden_size": 130}, "hidden_size=130"),
        ({"kv_heads": 3}, "kv_heads=3"),
        ({"rope_sections": (2, 4, 26)}, "add up to 16"),
    ],
)
def test_impossible_sizes_are_named(sizes, named):
    with pytest.raises(ValueError, match=named):
        PolicySize(**sizes)


def test_a_qwen3_vl_is_as_small_and_answers_too(tmp_path):
    write_policy(tmp_path, PolicySize(vision_depth=3), seed=0, model_type="qwen3_vl")
    model, report = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.vision_config.deepstack_visual_indexes == [0, 1]
    assert model.config.text_config.head_dim == 64  # wider than hidden_size / heads, as in the 4B model
    assert model.config.text_config.rope_parameters["mrope_section"] == [12, 10, 10]
    processor = AutoProcessor.from_pretrained(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 96, 3), dtype=np.uint8))
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}]}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 6]]  # not enlarged
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert out.shape[1] == inputs["input_ids"].shape[1] + 2
    with pytest.raises(ValueError, match="rope_sections"):
        write_policy(tmp_path, PolicySize(rope_sections=(2, 4, 10)), model_type="qwen3_vl")
