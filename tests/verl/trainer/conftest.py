"""A configuration of four prompts a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from verl.config import Config, load_config


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Qwen2.5-VL config.json; no weights."""
    from transformers import Qwen2_5_VLConfig

    folder = tmp_path_factory.mktemp("policy")
    Qwen2_5_VLConfig().save_pretrained(folder)
    return folder


@pytest.fixture
def config(policy_folder: Path, tmp_path: Path) -> Config:
    """Four prompts of four responses a step, six steps in two episodes of twelve prompts."""
    return load_config(
        [
            f"worker.actor.model.model_path={policy_folder}",
            f"trainer.save_checkpoint_path={tmp_path / 'run'}",
            "trainer.device=cpu",
            "trainer.n_gpus_per_node=2",
            "trainer.total_episodes=2",
            "trainer.logger=[]",
            "data.rollout_batch_size=4",
            "data.max_prompt_length=64",
            "data.max_response_length=8",
            "worker.actor.global_batch_size=4",
            "worker.rollout.n=4",
        ]
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy world, the teacher's records of it, and an untrained tiny policy, laid out as `make demo` does."""
    from training_data_construction.seed_cot_generation import main as teach
    from veason.toy.tiny_policy import write_policy
    from veason.toy.world import make_world

    root = tmp_path_factory.mktemp("demo")
    make_world(root / "world", train_videos=4, valid_videos=1, reasonvos_videos=1)
    write_policy(root / "policy")
    overrides = (
        f"--data_root {root}/world/ReVOS --input_json meta_expressions_train_.json --output {root}/cot "
        "--teacher toy --keyframe_resize 112"
    )
    assert teach(overrides.split()) == 0
    return root
