"""GRPO on clips of one frame, which are images, and of 64 frames: the real pipeline on the CPU."""

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
    worker.reward.sam2_config=null worker.actor.optim.lr=3e-3 worker.rollout.n=2 data.rollout_batch_size=2
    worker.actor.global_batch_size=2 data.max_response_length=12 data.val_files=null trainer.n_gpus_per_node=1
    trainer.test_freq=-1 trainer.max_steps=2 trainer.save_freq=-1
    """
)

pytestmark = pytest.mark.timeout(600)


def train(folder: Path, *more: str) -> list[dict[str, float]]:
    """The metrics of a run of two steps on a tiny policy with random weights."""
    write_policy(folder / "policy")
    paths = (f"worker.actor.model.model_path={folder}/policy", f"trainer.save_checkpoint_path={folder}/run")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    command = [sys.executable, "-m", *COMMAND, *paths, *more]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=500, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    rows = read_metrics(folder / "run")
    assert rows and [row["step"] for row in rows] == [*range(1, len(rows) + 1)]
    assert all(row["rollout/log_prob_gap"] < 1e-3 for row in rows)
    return rows


def test_images_mixed_with_videos(tmp_path: Path) -> None:
    make_world(tmp_path / "world", train_videos=2, valid_videos=1, reasonvos_videos=1, queries=2)
    sets = (
        f"data.mix.reasonseg.train_files={write_reasonseg(tmp_path)}",
        f"data.mix.revos.train_files={tmp_path}/world/ReVOS",
    )
    rows = train(
        tmp_path, *sets, "trainer.max_steps=3", "data.rollout_batch_size=3", "worker.actor.global_batch_size=3"
    )
    assert len({row["prompt/max"] for row in rows} | {row["prompt/mean"] for row in rows}) > 1  # of 1 and of 5 frames


def test_64_frames_and_more(tmp_path: Path) -> None:
    make_world(tmp_path / "world", train_videos=2, valid_videos=1, reasonvos_videos=1, frames=64, queries=2)
    # The videos have a few more frames; all of them are shown, since the rule's stride is 1 for N above their number.
    options = "data.sampled_frames=100", "data.max_prompt_length=3072", f"data.train_files={tmp_path}/world/ReVOS"
    rows = train(tmp_path, *options)
    assert all(row["prompt/max"] > 64 * 16 for row in rows)
