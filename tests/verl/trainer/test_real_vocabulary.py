"""With Qwen2.5's own vocabulary: prompt ids, digits and lengths. test_qwen3_pipeline.py runs every stage with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.qwen_vocabulary import qwen_tokenizer, ranks
from training_data_construction.seed_cot_generation import main as teach
from veason.data.training import build_training_data
from veason.inference.segmenter import Segmenter
from veason.inference.vllm_policy import VLLMPolicy
from veason.prompts import build_messages
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from veason.toy.world import make_world
from verl.workers.prompt_builder import PromptBuilder

ROOT = Path(__file__).parents[3]
IMAGE_PAD = 151655
TEXTS = (
    '<think>Step 1: the dog runs 120 m.</think>\n<answer>{"keyframe_timestamp": 12, "bbox_2d_list": []}</answer>',
    "Überholt — 你好, it's  two  spaces\n\n\tend",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy world, the teacher's records of it, and an untrained policy with the real vocabulary."""
    folder = tmp_path_factory.mktemp("real_vocabulary")
    make_world(folder / "world", train_videos=4, valid_videos=1, reasonvos_videos=1)
    size = PolicySize(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, vision_hidden_size=32, vision_heads=2)
    write_policy(folder / "policy", size, tokenizer=qwen_tokenizer())
    words = f"--data_root {folder}/world/ReVOS --output {folder}/cot --teacher toy --keyframe_resize 112"
    assert teach([*words.split(), "--input_json", "meta_expressions_train_.json"]) == 0
    return folder


def test_ids_are_the_published_ones() -> None:
    """As tiktoken encodes with the same ranks; special tokens have the ids of Qwen2.5-VL-3B-Instruct's config.json."""
    import tiktoken
    from qwen_tokenizer.qwen_tokenizer import PAT_STR

    tokenizer = qwen_tokenizer()
    known = tiktoken.Encoding("qwen", pat_str=PAT_STR, mergeable_ranks=ranks(), special_tokens={})
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert ids == known.encode(text) and tokenizer.decode(ids) == text
    assert [tokenizer.convert_ids_to_tokens(each) for each in tokenizer("2026").input_ids] == ["2", "0", "2", "6"]
    named = {"<|endoftext|>": 151643, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|image_pad|>": IMAGE_PAD}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in named} == named


def test_prompt_ids_are_equal_in_every_stage(root: Path) -> None:
    builder = PromptBuilder(str(root / "policy"))
    world = {"train_files": root / "world" / "ReVOS", "keyframe_resize": 112}
    tuned = build_training_data("cot", meta_file=root / "cot" / "cot_train.json", **world)
    trained = build_training_data("revos", meta_file="train", **world)
    example = tuned.example(0, 0)
    expression = tuned.samples[0].expression
    ids = builder.raw_prompt_ids(example)
    timestamps = example.ground_truth.timestamps
    assert ids.count(IMAGE_PAD) == len(timestamps)
    number = next(n for n in range(len(trained)) if trained.sample_id(n) == example.sample_id)
    shown = [trained.example(number, seed) for seed in range(40)]
    same = [each for each in shown if each.ground_truth.timestamps == timestamps]
    assert all(builder.raw_prompt_ids(each) == ids for each in same)
    again = replace(example, messages=build_messages(expression, timestamps, None, (112, 112)))
    assert builder.raw_prompt_ids(again) == ids

    policy = object.__new__(VLLMPolicy)  # without its engine
    policy.processor, policy.max_prompt_tokens = builder.processor, 7100
    frames = np.zeros((4, 48, 80, 3), np.uint8)
    (question,) = Segmenter(policy, None, 4, 112).build_prompts(frames, [expression])
    evaluated = builder.tokenizer(policy._prompt(question)["prompt"]).input_ids
    pictures = [Image.new("RGB", (112, 112))] * 4
    messages = build_messages(expression, [0, 1, 2, 3], None, (112, 112))
    assert evaluated == builder.raw_prompt_ids(replace(example, messages=messages, images=pictures))


@pytest.mark.parametrize(("frames", "tokens"), [(5, 2233), (6, 2641), (8, 3457)])
def test_length_of_a_prompt_at_560(root: Path, frames: int, tokens: int) -> None:
    """The numbers of docs/data.md; 400 tokens of each frame are visual."""
    builder = PromptBuilder(str(root / "policy"))
    timestamps = [10 * (number + 1) for number in range(frames)]
    messages = build_messages("the dog that is chased by the other one", timestamps, None, (560, 560))
    assert builder.length(messages, [(560, 560)] * frames) == tokens
