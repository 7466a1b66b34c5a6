"""The responses of the shipped training data are counted before the workers start."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_data_construction.seed_cot_generation import main as teach
from veason.toy.tiny_policy import write_policy
from veason.toy.tiny_policy_config import PolicySize
from veason.toy.world import make_world
from verl.config import load_config, override
from verl.trainer.main import build_task
from verl.trainer.prompt_data import open_prompts
from verl.trainer.prompt_lengths import ResponseTooLong


def test_too_long_a_response_is_refused_before_the_workers_start(tmp_path: Path) -> None:
    """`CoTData.response` lets the trainer count all of them; once a long one ended a run at its tenth step."""
    make_world(tmp_path / "world", train_videos=2, valid_videos=1, reasonvos_videos=1)
    write_policy(tmp_path / "policy", PolicySize(layers=1, vision_depth=1))
    words = f"--data_root {tmp_path}/world/ReVOS --output {tmp_path}/cot --teacher toy --keyframe_resize 112"
    assert teach([*words.split(), "--input_json", "meta_expressions_train_.json"]) == 0
    config = load_config(
        [
            f"worker.actor.model.model_path={tmp_path / 'policy'}",
            f"data.train_files={tmp_path / 'world' / 'ReVOS'}",
            f"data.meta_file={tmp_path / 'cot' / 'cot_train.json'}",
            f"trainer.save_checkpoint_path={tmp_path / 'run'}",
            "data.name=cot",
            "data.keyframe_resize=112",
        ]
    )
    prompts = open_prompts(config, build_task(config, needs_rollout=False), is_supervised=True)
    assert len(prompts.sampler) == len(prompts.lengths.data)
    limit = override(config, {"data.max_response_length": 30})
    with pytest.raises(ResponseTooLong, match=r": its response has \d+ tokens, data\.max_response_length is 30"):
        open_prompts(limit, build_task(limit, needs_rollout=False), is_supervised=True)
