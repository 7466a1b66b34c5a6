"""The toy experiment of a Qwen3-VL policy, from random weights to the rows of the page, with tiny settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.evaluation_folder import read_run
from veason.model_info import read_model_info
from verl.trainer.run_log import read_metrics

ROOT = Path(__file__).parents[2]
BLOCKS = ("scores", "answers", "curves", "commands")
TINY = {
    "STEPS": "2",
    "SFT_STEPS": "1",
    "GRPO_STEPS": "1",
    "VALID_VIDEOS": "2",
    "TRAIN_VIDEOS": "2",
    "RUNS": "grpo",
    "SEEDS": "0",
    "LIMIT": "2",
    "JOBS": "1",
}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]  # minutes: five programs one after the other


def test_one_command_from_random_weights_to_the_rows(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = [f"<!-- begin qwen3_vl {name} -->\nnone\n<!-- end qwen3_vl {name} -->" for name in BLOCKS]
    page.write_text("\n".join(["# Rows", *marks, "The end."]))
    variables = TINY | {"MODEL_TYPE": "qwen3_vl", "TOY_ROOT": str(tmp_path / "toy"), "PAGE": str(page)}
    env = os.environ | variables | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}
    small = ["data.rollout_batch_size=2", "worker.actor.global_batch_size=2", "worker.rollout.n=2"]
    small += ["trainer.test_freq=-1"]
    command = ["bash", "training_scripts/run_toy_experiments.sh", *small]
    # the second time as after an interruption before the model card; the third time there is nothing left to train
    for attempt in range(3):
        result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1400, check=False)
        logs = "".join(path.read_text()[-3000:] for path in (tmp_path / "toy").glob("runs/*/*.log"))
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:] + logs
        if attempt == 0:
            (tmp_path / "toy" / "toy_policy" / "README.md").unlink()
    assert "finished in" not in result.stdout and "pre-training" not in result.stdout

    policy, runs = tmp_path / "toy" / "toy_policy", tmp_path / "toy" / "runs"
    assert read_model_info(policy).model_type == "qwen3_vl"
    card = (policy / "README.md").read_text()
    assert card.startswith("# A tiny Qwen3-VL") and "128 x 128 pixels" in card
    header, records = read_run(runs / "grpo-0" / "eval")
    assert len(records) == 2 and header["keyframe_resize"] == 128 and header["coordinate_range"] == 1000
    (row,) = read_metrics(runs / "grpo-0" / "train")
    assert row["rollout/log_prob_gap"] < 1e-4
    assert json.loads((runs / "sft" / "stages.json").read_text()).keys() == {"evaluate"}
    text = page.read_text()
    assert "none" not in text and text.count("GRPO, the published recipe") >= 3 and text.endswith("The end.")
