"""A tiny Qwen3-VL with the family's own vocabulary through the whole pipeline on the CPU, with the commands of a real
run: records with relative boxes, fine-tuning, GRPO from its weights, evaluation and its report; no key is written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.evaluation_folder import read_run
from tests.qwen_vocabulary import qwen_tokenizer
from training_data_construction.seed_cot_generation import main as teach
from veason.model_info import ModelInfo, read_model_info
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from veason.toy.tiny_tracker import write_tracker
from veason.toy.world import make_world
from verl.trainer.run_log import read_metrics

ROOT = Path(__file__).parents[3]
SIDE, SIZE = 1000, 128
KEYS = {name: f"planted-{name.lower()}-0123456789" for name in ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")}

pytestmark = pytest.mark.timeout(900)  # a training of each kind and an evaluation, each of which starts its workers


def command(root: Path, *words: object, **variables: str) -> str:
    """Runs `python -m WORDS` with keys in the environment; gives what it prints."""
    env = os.environ | KEYS | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DEMO_ROOT": str(root), **variables}
    env |= {"WANDB_MODE": "offline", "WANDB_DIR": str(root)}
    line = [sys.executable, "-m", *map(str, words)]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=env, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    assert not [name for name, key in KEYS.items() if key in result.stdout + result.stderr]
    return result.stdout


def test_records_fine_tuning_grpo_and_evaluation(tmp_path: Path) -> None:
    data, policy = tmp_path / "world" / "ReVOS", tmp_path / "policy"
    make_world(tmp_path / "world", train_videos=3, valid_videos=1, reasonvos_videos=1)
    size = PolicySize(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, vision_depth=3)
    write_policy(policy, size, tokenizer=qwen_tokenizer(), model_type="qwen3_vl")
    write_tracker(tmp_path / "tracker")
    records = f"--data_root {data} --input_json meta_expressions_train_.json --output {tmp_path / 'cot'} --teacher toy"
    assert teach([*records.split(), "--keyframe_resize", str(SIZE), "--coordinate_range", str(SIDE)]) == 0

    shared = [f"data.keyframe_resize={SIZE}", "trainer.n_gpus_per_node=1", "data.rollout_batch_size=2"]
    shared += ["worker.actor.global_batch_size=2", "trainer.test_freq=-1", "data.val_files=null"]
    shared += ["trainer.logger=[console,wandb]"]
    sft = ["config=configs/toy/sft_demo.yaml", "trainer.max_steps=3", f"worker.actor.model.model_path={policy}"]
    command(tmp_path, "verl.trainer.sft", *shared, *sft, "worker.actor.model.lora_rank=4")
    losses = [row["loss"] for row in read_metrics(tmp_path / "sft")]
    assert len(losses) == 3 and losses[-1] < losses[0]
    (tuned,) = (tmp_path / "sft").glob("global_step_3/actor/huggingface")
    assert read_model_info(tuned) == ModelInfo("qwen3_vl", 32, SIDE, trained=True)

    grpo = ["config=configs/toy/demo.yaml", "trainer.max_steps=2", f"worker.actor.model.model_path={tuned}"]
    grpo += ["worker.reward.compute_score=no_sam2", "worker.reward.sam2_config=null", "worker.rollout.n=2"]
    command(tmp_path, "verl.trainer.main", *shared, *grpo, "data.max_response_length=12")
    rows = read_metrics(tmp_path / "grpo")
    assert len(rows) == 2 and all(row["rollout/log_prob_gap"] < 1e-4 for row in rows)
    trained = tmp_path / "grpo/global_step_2/actor/huggingface"
    assert json.loads((trained / "veason.json").read_text())["coordinate_range"] == SIDE

    tracker = tmp_path / "tracker"
    options = [f"data_path={data}", f"model_path={trained}", f"output_path={tmp_path / 'eval'}", "benchmark=revos"]
    options += [f"sam2_config={tracker / 'sam2_tiny.yaml'}", f"sam2_checkpoint={tracker / 'sam2_tiny.pt'}"]
    options += [f"keyframe_resize={SIZE}", "max_response_length=12", "limit=2", "workers=1"]
    printed = command(tmp_path, "eval.evaluate", *options, RAY_ADDRESS="local")  # no cluster of somebody else
    header, found = read_run(tmp_path / "eval")
    assert len(found) == 2 and header["coordinate_range"] == SIDE and f"from 0 to {SIDE}" not in header["prompt"]
    assert "| this run |" in printed
    command(tmp_path, "eval.report", tmp_path / "eval")
    assert_no_key_in(tmp_path)


def assert_no_key_in(root: Path) -> None:
    """In checkpoints, metrics, wandb's files, records and the report."""
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"trainer.json", "metrics.jsonl", "predictions.jsonl", "report.html"}
    assert any(path.suffix == ".wandb" for path in files) and any(path.suffix == ".safetensors" for path in files)
    for name, key in KEYS.items():
        assert [path for path in files if key.encode() in path.read_bytes()] == [], name
