"""What follows from other keys: filled in once, before anything is checked or started."""

from __future__ import annotations

import logging
import os
from typing import Any

from verl.config.schema import Config, override, value_of

log = logging.getLogger(__name__)

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
DTYPE_KEYS = (
    "worker.rollout.dtype",
    *(
        f"worker.{model}.fsdp.{key}"
        for model in ("actor", "ref")
        for key in ("torch_dtype", "mp_param_dtype", "mp_reduce_dtype")
    ),
)
DATA_PATHS = ("train_files", "val_files", "meta_file", "val_meta_file", "exclude", "prompt_template")
PATH_KEYS = (  # files and folders, or names that something else looks up
    *(f"data.{key}" for key in DATA_PATHS),
    "worker.actor.model.model_path",
    "worker.actor.model.tokenizer_path",
)


def derive_values(config: Config) -> Config:
    """A copy with what is derived: dtypes in one spelling, absolute paths (workers run in another folder), lengths."""
    changes: dict[str, Any] = {key: DTYPES.get(str(value_of(config, key)), value_of(config, key)) for key in DTYPE_KEYS}
    changes |= {key: _absolute(value_of(config, key)) for key in PATH_KEYS}
    given = config.worker.reward.tracker_options
    options = {name: _absolute(value) for name, value in given.items() if value is not None}
    actor, ref, trainer = config.worker.actor, config.worker.ref, config.trainer
    folder = trainer.save_checkpoint_path or os.path.join("checkpoints", trainer.project_name, trainer.experiment_name)
    changes |= {
        "worker.actor.model.tokenizer_path": _absolute(actor.model.tokenizer_path or actor.model.model_path),
        "worker.rollout.prompt_length": config.data.max_prompt_length,
        "worker.rollout.response_length": config.data.max_response_length,
        "worker.reward.tracker_options": options,
        "data.mix": {label: _member(keys) for label, keys in config.data.mix.items()},
        "trainer.save_checkpoint_path": os.path.abspath(folder),
    }
    if trainer.remove_previous_ckpt:
        changes["trainer.save_limit"] = 1
    if ref.offload.optimizer_offload:
        log.warning("worker.ref has no optimizer: optimizer_offload has no effect there")
    if config.algorithm.kl_coef != 0 and actor.use_kl_loss:
        weigher = "worker.actor.kl_loss_coef weighs the KL term"
        log.warning("algorithm.kl_coef has no effect beside worker.actor.use_kl_loss=true: %s", weigher)
        changes["algorithm.kl_coef"] = 0.0
    return override(config, changes)


def _member(keys: Any) -> Any:
    """A set of data.mix with absolute paths."""
    if not isinstance(keys, dict):
        return keys
    return {key: _absolute(value) if key in DATA_PATHS else value for key, value in keys.items()}


def _absolute(value: Any) -> Any:
    """The absolute path of what is there; anything else as it is."""
    return os.path.abspath(value) if isinstance(value, str) and os.path.exists(value) else value


def sft_config(config: Config) -> Config:
    """A copy with what does not apply to fine-tuning switched off."""
    return override(
        config,
        {
            # a step is one update, which the learning-rate schedule counts
            "worker.actor.global_batch_size": config.data.rollout_batch_size,
            "worker.actor.ppo_epochs": 1,
            "worker.actor.use_kl_loss": False,  # so that generating for validation loads no reference model
        },
    )
