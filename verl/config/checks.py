"""Combinations that cannot run, found before any model is loaded. Each check names the keys and what would be right."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from verl.config.schema import Config, ConfigError, nearest

log = logging.getLogger(__name__)

PATCH = 28  # pixels: Qwen2.5-VL's patch of 14, merged 2 x 2; the image processor rounds a side to its multiple

CHOICES = {
    "data.on_bad_sample": ("raise", "skip"),
    "worker.reward.on_tracker_error": ("raise", "skip"),
    "worker.actor.optim.lr_scheduler_type": ("constant", "cosine", "linear"),
    "worker.actor.fsdp.mp_param_dtype": ("bf16", "fp16", "fp32"),
    "worker.actor.fsdp.mp_reduce_dtype": ("bf16", "fp16", "fp32"),
    "worker.ref.fsdp.mp_param_dtype": ("bf16", "fp16", "fp32"),
    "worker.ref.fsdp.mp_reduce_dtype": ("bf16", "fp16", "fp32"),
    "worker.rollout.dtype": ("bf16", "fp16", "fp32"),
    "trainer.device": ("cuda", "cpu", "auto"),
}
LOGGERS = ("console", "wandb", "tensorboard")
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

PATHS = {  # files and folders, or names that something else looks up
    "data": ("train_files", "val_files", "meta_file", "val_meta_file", "exclude", "prompt_template"),
    "worker.actor.model": ("model_path", "tokenizer_path"),
    "worker.reward": ("sam2_config", "sam2_checkpoint"),
}
AT_LEAST_ONE = {
    "data": (
        "sampled_frames",
        "keyframe_resize",
        "max_prompt_length",
        "max_response_length",
        "rollout_batch_size",
        "val_batch_size",
    ),
    "worker.actor": (
        "global_batch_size",
        "micro_batch_size_per_device_for_update",
        "ppo_epochs",
        "micro_batch_size_per_device_for_experience",
    ),
    "worker.rollout": ("n", "val_n", "tensor_parallel_size", "max_num_seqs"),
    "trainer": ("nnodes", "n_gpus_per_node", "total_episodes"),
    "algorithm": ("max_sampling_rounds",),
}


def check_config(config: Config) -> Config:
    """Fills in what follows from other keys, and refuses what cannot run.

    Raises:
        ConfigError: one line, for the first thing found.
    """
    _fill_in(config)
    _check_values(config)
    _check_names(config)
    _check_batches(config)
    _check_lengths(config)
    return config


def value_of(config: Config, path: str) -> object:
    """The value at a dotted key."""
    node: object = config
    for part in path.split("."):
        node = getattr(node, part)
    return node


def check_choice(path: str, value: object, valid: Iterable[str]) -> None:
    """Raises a ConfigError that lists the valid words, the nearest first."""
    valid = list(valid)
    if value not in valid:
        raise ConfigError(f"{path}: {value!r} is none of {', '.join(valid)}{nearest(str(value), valid)}")


def _fill_in(config: Config) -> None:
    rollout, trainer = config.worker.rollout, config.trainer
    rollout.prompt_length, rollout.response_length = config.data.max_prompt_length, config.data.max_response_length
    rollout.dtype = DTYPES.get(rollout.dtype, rollout.dtype)
    for fsdp in (config.worker.actor.fsdp, config.worker.ref.fsdp):
        fsdp.mp_param_dtype = DTYPES.get(fsdp.mp_param_dtype, fsdp.mp_param_dtype)
        fsdp.mp_reduce_dtype = DTYPES.get(fsdp.mp_reduce_dtype, fsdp.mp_reduce_dtype)
        fsdp.torch_dtype = DTYPES.get(fsdp.torch_dtype or "", fsdp.torch_dtype)
    actor, ref = config.worker.actor, config.worker.ref
    actor.offload.optimizer_offload |= actor.fsdp.optimizer_offload
    if ref.fsdp.optimizer_offload or ref.offload.optimizer_offload:
        log.warning("worker.ref has no optimizer: optimizer_offload has no effect there")
    if trainer.remove_previous_ckpt:
        trainer.save_limit = 1
    if trainer.save_checkpoint_path is None:
        trainer.save_checkpoint_path = os.path.join("checkpoints", trainer.project_name, trainer.experiment_name)
    trainer.save_checkpoint_path = os.path.abspath(trainer.save_checkpoint_path)
    for section, keys in PATHS.items():
        node = value_of(config, section)
        for key in keys:
            path = getattr(node, key)
            if path is not None and os.path.exists(path):  # a worker has another current folder
                setattr(node, key, os.path.abspath(path))
    model = config.worker.actor.model
    model.tokenizer_path = model.tokenizer_path or model.model_path


def _check_values(config: Config) -> None:
    for path, valid in CHOICES.items():
        check_choice(path, value_of(config, path), valid)
    for path in ("worker.actor.fsdp.torch_dtype", "worker.ref.fsdp.torch_dtype"):
        if value_of(config, path) is not None:
            check_choice(path, value_of(config, path), CHOICES["worker.actor.fsdp.mp_param_dtype"])
    for name in config.trainer.logger:
        check_choice("trainer.logger", name, LOGGERS)
    for path in (f"{section}.{key}" for section, keys in AT_LEAST_ONE.items() for key in keys):
        if value_of(config, path) < 1:  # type: ignore[operator]
            raise ConfigError(f"{path} must be at least 1, not {value_of(config, path)}")
    actor, algorithm = config.worker.actor, config.algorithm
    if actor.optim.lr < 0:
        raise ConfigError(f"worker.actor.optim.lr must not be negative, it is {actor.optim.lr}")
    if len(actor.optim.betas) != 2 or not all(0 <= beta < 1 for beta in actor.optim.betas):
        raise ConfigError(f"worker.actor.optim.betas must be two numbers in [0, 1), not {actor.optim.betas}")
    if actor.clip_ratio_dual is not None and actor.clip_ratio_dual <= 1:
        raise ConfigError(
            f"worker.actor.clip_ratio_dual must be above 1, it is {actor.clip_ratio_dual}; null switches it off"
        )
    if actor.tis_cap is not None and actor.tis_cap <= 0:
        raise ConfigError(f"worker.actor.tis_cap must be above 0, it is {actor.tis_cap}; null switches it off")
    if actor.policy_loss == "seed" and (actor.tis_cap is not None or actor.clip_ratio_dual is not None):
        raise ConfigError(
            "worker.actor.policy_loss=seed knows neither worker.actor.tis_cap nor clip_ratio_dual: choose vanilla"
        )
    if config.worker.rollout.val_n > 1 and config.worker.rollout.val_temperature == 0:
        raise ConfigError(
            f"worker.rollout.val_n={config.worker.rollout.val_n} answers would all be the greedy one: set "
            "worker.rollout.val_temperature"
        )
    if config.worker.rollout.temperature <= 0:
        raise ConfigError(
            "worker.rollout.temperature must be above 0 in training; worker.rollout.val_temperature may be 0 (greedy)"
        )
    if algorithm.dynamic_sampling and config.worker.rollout.n == 1:
        raise ConfigError(
            "algorithm.dynamic_sampling leaves out groups with equal scores, and worker.rollout.n=1 has no others"
        )
    if config.trainer.max_steps is not None and config.trainer.max_steps < 1:
        raise ConfigError(
            f"trainer.max_steps must be at least 1, not {config.trainer.max_steps}; null trains as many episodes as "
            "configured"
        )
    if algorithm.kl_coef != 0 and not actor.use_kl_loss:
        raise ConfigError(
            "algorithm.kl_coef (KL in the reward) must be 0: set worker.actor.use_kl_loss=true and "
            "worker.actor.kl_loss_coef"
        )
    if algorithm.kl_coef != 0:
        log.warning(
            "algorithm.kl_coef has no effect beside worker.actor.use_kl_loss=true: worker.actor.kl_loss_coef weighs "
            "the KL term"
        )
        algorithm.kl_coef = 0.0


def _check_names(config: Config) -> None:
    from verl.algorithms.advantages import ADVANTAGES
    from verl.algorithms.aggregation import AGGREGATIONS
    from verl.algorithms.kl import KL_PENALTIES
    from verl.algorithms.losses import POLICY_LOSSES
    from verl.algorithms.registry import resolve

    tables: dict[str, Mapping[str, Callable[..., Any]]] = {
        "algorithm.adv_estimator": ADVANTAGES,
        "worker.actor.kl_loss_type": KL_PENALTIES,
        "worker.actor.policy_loss": POLICY_LOSSES,
    }
    for path, table in tables.items():
        name = str(value_of(config, path))
        if ":" not in name:
            check_choice(path, name, table)
            continue
        try:
            resolve(name, table, path)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{path}={name}: {error}") from error
    check_choice("worker.actor.loss_agg_mode", config.worker.actor.loss_agg_mode, AGGREGATIONS)


def _check_batches(config: Config) -> None:
    trainer, actor, rollout = config.trainer, config.worker.actor, config.worker.rollout
    workers = trainer.nnodes * trainer.n_gpus_per_node
    places = f"trainer.nnodes x trainer.n_gpus_per_node = {workers} workers"
    if workers % rollout.tensor_parallel_size:
        raise ConfigError(
            f"worker.rollout.tensor_parallel_size={rollout.tensor_parallel_size} does not divide {places}; "
            f"nearest: {_nearest_divisor(workers, rollout.tensor_parallel_size)}"
        )
    for path, size in (("actor", actor.fsdp.fsdp_size), ("ref", config.worker.ref.fsdp.fsdp_size)):
        if size != -1 and (size < 1 or workers % size):
            near = _nearest_divisor(workers, size)
            raise ConfigError(
                f"worker.{path}.fsdp.fsdp_size={size} does not divide {places}; nearest: {near}, or -1 for all"
            )
    if config.data.rollout_batch_size % actor.global_batch_size:
        near = _nearest_divisor(config.data.rollout_batch_size, actor.global_batch_size)
        raise ConfigError(
            f"worker.actor.global_batch_size={actor.global_batch_size} does not divide "
            f"data.rollout_batch_size={config.data.rollout_batch_size}; nearest: {near}"
        )
    if actor.global_batch_size % workers:
        near = max(workers, round(actor.global_batch_size / workers) * workers)
        raise ConfigError(
            f"worker.actor.global_batch_size={actor.global_batch_size} cannot be shared by {places}; nearest: {near}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))


def _check_lengths(config: Config) -> None:
    data, rollout = config.data, config.worker.rollout
    needed = data.max_prompt_length + data.max_response_length
    if rollout.max_model_len is not None and rollout.max_model_len < needed:
        raise ConfigError(
            f"worker.rollout.max_model_len={rollout.max_model_len} is below max_prompt_length + max_response_length = "
            f"{needed}"
        )
    if data.keyframe_resize % PATCH:
        near = max(PATCH, round(data.keyframe_resize / PATCH) * PATCH)
        raise ConfigError(
            f"data.keyframe_resize={data.keyframe_resize} is not a multiple of {PATCH}, the policy's patch; nearest: "
            f"{near}"
        )
    if not data.min_pixels <= data.keyframe_resize**2 <= data.max_pixels:
        raise ConfigError(
            f"data.keyframe_resize={data.keyframe_resize} gives {data.keyframe_resize**2} pixels, outside "
            "data.min_pixels="
            f"{data.min_pixels} and data.max_pixels={data.max_pixels}: the model would see another size than its "
            "boxes are in"
        )
    if not 0 <= config.algorithm.overlong_buffer <= data.max_response_length:
        raise ConfigError("algorithm.overlong_buffer must lie between 0 and data.max_response_length")
