"""The real pipeline on the CPU, from the command line: two Ray workers, vLLM rollouts, FSDP2 updates, the tiny policy,
the toy world.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from verl.metric_info import find_metric
from verl.trainer.run_info import RunInfo
from verl.trainer.run_log import read_metrics

ROOT = Path(__file__).parents[3]
GRPO = shlex.split(
    """
    verl.trainer.main config=configs/toy/demo.yaml worker.reward.compute_score=letters_rule:RULE
    worker.reward.sam2_config=null worker.actor.optim.lr=3e-3 worker.rollout.n=3 data.rollout_batch_size=2
    worker.actor.global_batch_size=2 data.max_response_length=12 data.val_files=null
    trainer.test_freq=-1 trainer.max_steps=6 trainer.save_freq=3 trainer.save_limit=-1 trainer.log_rollouts_freq=-1
    """
)
SFT = shlex.split(
    """
    verl.trainer.sft config=configs/toy/sft_demo.yaml data.rollout_batch_size=4 worker.actor.global_batch_size=4
    worker.actor.model.lora_rank=4 worker.actor.model.lora_dropout=0.1
    trainer.max_steps=6 trainer.save_freq=3 trainer.save_limit=-1 trainer.test_freq=2
    """
)

OWN_LINE = re.compile(
    r"training on |step \d|\d+ prompts of|started in |memory on each worker| {10}|checkpoints and metrics.jsonl: "
)

pytestmark = pytest.mark.timeout(1200)  # four runs, each of which starts its workers


def train(overrides: list[str], toy: Path, folder: str, *more: str) -> Path:
    """One run on `toy`'s policy; gives its folder. Nothing but the run's own lines is on the screen."""
    path = toy / folder
    paths = [f"worker.actor.model.model_path={toy / 'policy'}", f"trainer.save_checkpoint_path={path}"]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
        "DEMO_ROOT": str(toy),
    }
    command = [sys.executable, "-m", *overrides, *paths, *more]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=600, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    assert [line for line in result.stdout.splitlines() if not OWN_LINE.match(line)] == [] and result.stderr == ""
    assert {file.name for file in (path / "logs").iterdir()} == {"driver.log", "rank_0.log", "rank_1.log"}
    return path


def steps(folder: Path) -> list[dict[str, float]]:
    """The run's metrics, less those that depend on the machine's speed and memory."""
    machine = ("timing_s/", "perf/", "memory/", "ray/")
    return [
        {name: value for name, value in row.items() if not name.startswith(machine)} for row in read_metrics(folder)
    ]


def assert_same_end(whole: Path, resumed: Path) -> None:
    """Metrics of steps 4 to 6 and the weights after them, bit for bit."""
    assert steps(resumed) == steps(whole)[3:]
    last = "global_step_6/actor/huggingface/model.safetensors"
    weights, others = load_file(whole / last), load_file(resumed / last)
    assert weights.keys() == others.keys() and all(weights[name].equal(others[name]) for name in weights)
    first = load_file(whole / "global_step_3/actor/huggingface/model.safetensors")
    assert any(not weights[name].equal(first[name]) for name in weights)


def test_grpo_resumed_equals_uninterrupted(toy: Path) -> None:
    whole = train(GRPO, toy, "grpo")
    load = f"trainer.load_checkpoint_path={whole / 'global_step_3'}"
    resumed = train(GRPO, toy, "grpo_resumed", load, "trainer.log_rollouts_freq=2")  # which changes nothing
    assert_same_end(whole, resumed)
    assert all(find_metric(name) for row in read_metrics(whole) for name in row if name != "step")
    logged = [json.loads(line) for line in (resumed / "rollouts/step_4.jsonl").read_text().splitlines()]
    assert len(logged) == 2 * 3 and all((resumed / "rollouts" / row["pictures"]["masks"]).is_file() for row in logged)
    assert not (resumed / "rollouts/step_5.jsonl").exists() and not (whole / "rollouts").exists()
    info = RunInfo.read(resumed)
    assert (info.start, info.steps, info.program, info.device, info.workers) == (3, 6, "GRPO", "CPU", 2)
    rows = steps(whole)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["rollout/log_prob_gap"] < 1e-3 for row in rows)


def test_fine_tuning_resumed_equals_uninterrupted(toy: Path) -> None:
    whole = train(SFT, toy, "sft")
    resumed = train(SFT, toy, "sft_resumed", f"trainer.load_checkpoint_path={whole / 'global_step_3'}")
    assert_same_end(whole, resumed)
    assert all(find_metric(name) for row in read_metrics(whole) for name in row if name != "step")
    rows = steps(whole)
    assert rows[-1]["loss"] < rows[0]["loss"] and [row["step"] for row in rows if "val/loss" in row] == [2, 4, 6]
