"""GRPO on clips of one frame, which are images, beside those of 64 frames: the real pipeline on the CPU."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.veason.small_official import write_reasonseg
from veason.toy.tiny_policy import write_policy
from veason.toy.world import make_world
from verl.trainer.run_log import read_metrics

ROOT = Path(__file__).parents[3]
COMMAND = shlex.split(
    """
    verl.trainer.main config=configs/toy/demo.yaml worker.reward.compute_score=letters_rule:RULE
    worker.reward.sam2_config=null worker.actor.optim.lr=3e-3 worker.rollout.n=2 data.rollout_batch_size=3
    worker.actor.global_batch_size=3 data.max_response_length=12 data.val_files=null trainer.n_gpus_per_node=1
    trainer.test_freq=-1 trainer.max_steps=3 trainer.save_freq=-1
    """
)

pytestmark = pytest.mark.timeout(600)


def test_images_mixed_with_videos_of_64_frames_and_more(tmp_path: Path) -> None:
    make_world(tmp_path / "world", train_videos=2, valid_videos=1, reasonvos_videos=1, frames=64, queries=2)
    write_policy(tmp_path / "policy")
    # The videos have a few more frames; all of them are shown, since the rule's stride is 1 for N above their number.
    options = [
        f"data.mix.reasonseg.train_files={write_reasonseg(tmp_path)}",
        f"data.mix.revos.train_files={tmp_path}/world/ReVOS",
        "data.sampled_frames=100",
        "data.max_prompt_length=3072",
        f"worker.actor.model.model_path={tmp_path}/policy",
        f"trainer.save_checkpoint_path={tmp_path}/run",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    command = [sys.executable, "-m", *COMMAND, *options]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=500, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["rollout/log_prob_gap"] < 1e-3 for row in rows)
    # 16 tokens a frame; an image beside them in the step
    assert any(row["prompt/max"] > 64 * 16 and row["prompt/mean"] < 0.8 * row["prompt/max"] for row in rows)
