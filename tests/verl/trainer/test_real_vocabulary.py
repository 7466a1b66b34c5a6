"""With Qwen2.5's own vocabulary: prompt ids, digits and lengths, and a run of every stage, which writes no key."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.evaluation_folder import read_run
from tests.qwen_vocabulary import qwen_tokenizer, ranks
from training_data_construction.seed_cot_generation import main as teach
from veason.data.training import build_training_data
from veason.inference.segmenter import Segmenter
from veason.inference.vllm_policy import VLLMPolicy
from veason.prompts import build_messages
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from veason.toy.world import make_world
from verl.trainer.run_log import read_metrics
from verl.workers.prompt_builder import PromptBuilder

ROOT = Path(__file__).parents[3]
IMAGE_PAD = 151655
KEYS = {name: f"planted-{name.lower()}-0123456789" for name in ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")}
TEXTS = (
    '<think>Step 1: the dog runs 120 m.</think>\n<answer>{"keyframe_timestamp": 12, "bbox_2d_list": []}</answer>',
    "Überholt — 你好, it's  two  spaces\n\n\tend",
)

pytestmark = pytest.mark.timeout(1200)


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
    times = example.truth.frame_ids
    assert ids.count(IMAGE_PAD) == len(times)
    number = next(n for n in range(len(trained)) if trained.sample_id(n) == example.sample_id)
    shown = [trained.example(number, seed) for seed in range(40)]
    same = [each for each in shown if each.truth.frame_ids == times]
    assert all(builder.raw_prompt_ids(each) == ids for each in same)
    again = replace(example, messages=build_messages(expression, times, None, (112, 112)))
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
    times = [10 * (number + 1) for number in range(frames)]
    messages = build_messages("the dog that is chased by the other one", times, None, (560, 560))
    assert builder.length(messages, [(560, 560)] * frames) == tokens


@pytest.fixture(scope="module")
def stages(root: Path) -> str:
    """Two steps of SFT and of GRPO, an evaluation and its report, with keys in the environment; what they printed."""
    small = ["trainer.max_steps=2", "trainer.save_freq=2", "trainer.test_freq=-1", "trainer.n_gpus_per_node=1"]
    small += ["data.rollout_batch_size=2", "worker.actor.global_batch_size=2", "trainer.logger=[console,wandb]"]
    data, world = ["data.val_files=null", "data.max_response_length=12"], f"data_path={root / 'world' / 'ReVOS'}"
    tuned, trained = root / "sft" / "huggingface", root / "grpo" / "huggingface"
    said = run(root, "verl.trainer.sft", "config=configs/toy/sft_demo.yaml", "sft.generate=0", *small)
    reward = ["worker.reward.compute_score=no_sam2", "worker.reward.sam2_config=null", "worker.rollout.n=2"]
    model = f"worker.actor.model.model_path={tuned}"
    said += run(root, "verl.trainer.main", "config=configs/toy/demo.yaml", model, *reward, *small, *data)
    evaluated = ["benchmark=revos", "limit=2", "workers=1", "max_response_length=12", world]
    tracker = "tracker=tests.veason.scripted_parts:BoxTracker"
    said += run(root, "eval.evaluate", f"model_path={trained}", f"output_path={root / 'run'}", tracker, *evaluated)
    return said + run(root, "eval.report", str(root / "run"))


def run(root: Path, *command: str) -> str:
    environment = os.environ | KEYS | {"OMP_NUM_THREADS": "1", "DEMO_ROOT": str(root)}
    environment |= {"WANDB_MODE": "offline", "WANDB_DIR": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


@pytest.mark.usefixtures("stages")
def test_two_steps_of_each_training_and_an_evaluation(root: Path) -> None:
    assert [len(read_metrics(root / name)) for name in ("sft", "grpo")] == [2, 2]
    _, records = read_run(root / "run")
    assert len(records) == 2


def test_no_key_is_written(root: Path, stages: str) -> None:
    """In checkpoints, metrics, wandb's files, records and the report; what a run prints is its log."""
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"trainer.json", "metrics.jsonl", "predictions.jsonl", "report.html"}
    assert any(path.suffix == ".wandb" for path in files) and any(path.suffix == ".safetensors" for path in files)
    for name, key in KEYS.items():
        assert key not in stages, name
        assert [path for path in files if key.encode() in path.read_bytes()] == [], name
