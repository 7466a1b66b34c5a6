"""The recipes of supervised fine-tuning say the same to this project's workers and to LLaMA-Factory."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from verl.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("own", "other", "rank", "epochs", "examples"),
    [
        ("sft_qwen2_5_vl_3b_lora.yaml", "llamafactory_qwen2_5vl_lora_sft.yaml", 64, 3, 16),
        ("sft_qwen2_5_vl_3b_lora_paper.yaml", "llamafactory_qwen2_5vl_lora_sft_paper.yaml", 8, 1, 8),
    ],
)
def test_both_trainers_run_one_recipe(
    own: str, other: str, rank: int, epochs: int, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL_PATH", "REVOS_ROOT", "COT_ROOT"):
        monkeypatch.setenv(name, "/data")
    config, factory = load_config([f"config={CONFIGS / own}"]), yaml.safe_load((CONFIGS / other).read_text())
    model, optim = config.worker.actor.model, config.worker.actor.optim
    assert (model.lora_rank, model.lora_alpha) == (factory["lora_rank"], factory["lora_alpha"]) == (rank, 2 * rank)
    assert config.trainer.total_episodes == factory["num_train_epochs"] == epochs
    accumulated = factory["per_device_train_batch_size"] * factory["gradient_accumulation_steps"]
    assert config.data.rollout_batch_size == config.worker.actor.global_batch_size == accumulated == examples
    assert optim.lr == factory["learning_rate"] == 1e-4
    assert optim.lr_scheduler_type == factory["lr_scheduler_type"] == "cosine"
    assert optim.lr_warmup_steps_ratio == factory["warmup_ratio"]
    assert model.freeze_vision_tower == factory["freeze_vision_tower"]
