"""Combinations that cannot run, found before any model is loaded. Each check names the keys and what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from verl.config.schema import Config, ConfigError, value_of
from verl.registry import nearest, resolve

DTYPES = ("bf16", "fp16", "fp32")
CHOICES = {
    "data.on_bad_sample": ("raise", "skip"),
    "worker.reward.on_tracker_error": ("raise", "skip"),
    "worker.actor.optim.lr_scheduler_type": ("constant", "cosine", "linear"),
    "worker.actor.fsdp.mp_param_dtype": DTYPES,
    "worker.actor.fsdp.mp_reduce_dtype": DTYPES,
    "worker.actor.fsdp.torch_dtype": (None, *DTYPES),
    "worker.ref.fsdp.mp_param_dtype": DTYPES,
    "worker.ref.fsdp.mp_reduce_dtype": DTYPES,
    "worker.ref.fsdp.torch_dtype": (None, *DTYPES),
    "worker.rollout.dtype": DTYPES,
    "trainer.device": ("cuda", "cpu", "auto"),
}
LOGGERS = {
    "console": "verl.trainer.loggers:ConsoleLogger",
    "wandb": "verl.trainer.loggers:WandbLogger",
    "tensorboard": "verl.trainer.loggers:TensorBoardLogger",
}
AT_LEAST_ONE = (
    "data.sampled_frames",
    "data.keyframe_resize",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.rollout_batch_size",
    "data.val_batch_size",
    "worker.actor.global_batch_size",
    "worker.actor.ppo_epochs",
    "worker.actor.micro_batch_size_per_device_for_update",
    "worker.actor.micro_batch_size_per_device_for_experience",
    "worker.rollout.n",
    "worker.rollout.val_n",
    "worker.rollout.tensor_parallel_size",
    "worker.rollout.max_num_seqs",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
    "trainer.total_episodes",
    "algorithm.max_sampling_rounds",
)


def check_config(config: Config) -> None:
    """Refuses what cannot run.

    Raises:
        ConfigError: one line, for the first thing found.
    """
    _check_values(config)
    _check_actor(config)
    _check_sampling(config)
    _check_names(config)
    _check_batches(config)
    _check_lengths(config)


def check_choice(key: str, value: object, valid: Iterable[str | None]) -> None:
    """Raises a ConfigError that lists the valid values, with the nearest."""
    valid = list(valid)
    if value not in valid:
        names = [name for name in valid if name is not None]
        raise ConfigError(f"{key}: {value!r} is none of {', '.join(names)}{nearest(str(value), names)}")


def _check_values(config: Config) -> None:
    for key, valid in CHOICES.items():
        check_choice(key, value_of(config, key), valid)
    for key in AT_LEAST_ONE:
        if value_of(config, key) < 1:
            raise ConfigError(f"{key} must be at least 1, not {value_of(config, key)}")
    steps = config.trainer.max_steps
    if steps is not None and steps < 1:
        raise ConfigError(f"trainer.max_steps must be at least 1, not {steps}; null trains trainer.total_episodes")


def _check_actor(config: Config) -> None:
    actor = config.worker.actor
    if actor.optim.lr < 0:
        raise ConfigError(f"worker.actor.optim.lr must not be negative, it is {actor.optim.lr}")
    if len(actor.optim.betas) != 2 or not all(0 <= beta < 1 for beta in actor.optim.betas):
        raise ConfigError(f"worker.actor.optim.betas must be two numbers in [0, 1), not {actor.optim.betas}")
    if actor.clip_ratio_dual is not None and actor.clip_ratio_dual <= 1:
        dual = actor.clip_ratio_dual
        raise ConfigError(f"worker.actor.clip_ratio_dual must be above 1, it is {dual}; null switches it off")
    if actor.tis_cap is not None and actor.tis_cap <= 0:
        raise ConfigError(f"worker.actor.tis_cap must be above 0, it is {actor.tis_cap}; null switches it off")
    if config.algorithm.kl_coef != 0:
        raise ConfigError(
            "algorithm.kl_coef (KL in the reward) must be 0: set worker.actor.use_kl_loss=true and "
            "worker.actor.kl_loss_coef"
        )


def _check_sampling(config: Config) -> None:
    rollout = config.worker.rollout
    if rollout.val_n > 1 and rollout.val_temperature == 0:
        answers = f"worker.rollout.val_n={rollout.val_n} answers"
        raise ConfigError(f"{answers} would all be the greedy one: set worker.rollout.val_temperature")
    if rollout.temperature <= 0:
        raise ConfigError("worker.rollout.temperature must be above 0 in training; val_temperature may be 0 (greedy)")
    if config.algorithm.dynamic_sampling and rollout.n == 1:
        raise ConfigError("algorithm.dynamic_sampling leaves out equal scores, and worker.rollout.n=1 has no others")


def _check_names(config: Config) -> None:
    from verl.algorithms.advantages import ADVANTAGES  # here: torch takes seconds, and a misspelt key is found above
    from verl.algorithms.aggregation import AGGREGATIONS
    from verl.algorithms.kl import KL_PENALTIES
    from verl.algorithms.losses import POLICY_LOSSES

    chosen: list[tuple[str, str, Mapping[str, Any]]] = [
        ("algorithm.adv_estimator", config.algorithm.adv_estimator, ADVANTAGES),
        ("worker.actor.kl_loss_type", config.worker.actor.kl_loss_type, KL_PENALTIES),
        ("worker.actor.policy_loss", config.worker.actor.policy_loss, POLICY_LOSSES),
        *(("trainer.logger", name, LOGGERS) for name in config.trainer.logger),
    ]
    for key, name, table in chosen:
        try:
            table[name] if name in table else resolve(name, table, key)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    check_choice("worker.actor.loss_agg_mode", config.worker.actor.loss_agg_mode, AGGREGATIONS)


def _check_batches(config: Config) -> None:
    trainer, actor, data = config.trainer, config.worker.actor, config.data
    workers = trainer.nnodes * trainer.n_gpus_per_node
    shown = f"trainer.nnodes x trainer.n_gpus_per_node = {workers} workers"
    size = config.worker.rollout.tensor_parallel_size
    if workers % size:
        near = _nearest_divisor(workers, size)
        raise ConfigError(f"worker.rollout.tensor_parallel_size={size} does not divide {shown}; nearest: {near}")
    for key in ("worker.actor.fsdp.fsdp_size", "worker.ref.fsdp.fsdp_size"):
        size = value_of(config, key)
        if size != -1 and (size < 1 or workers % size):
            near = _nearest_divisor(workers, size)
            raise ConfigError(f"{key}={size} does not divide {shown}; nearest: {near}, or -1 for all")
    size, batch = actor.global_batch_size, data.rollout_batch_size
    if batch % size:
        near = _nearest_divisor(batch, size)
        whole = f"data.rollout_batch_size={batch}"
        raise ConfigError(f"worker.actor.global_batch_size={size} does not divide {whole}; nearest: {near}")
    if size % workers:
        near = max(workers, round(size / workers) * workers)
        raise ConfigError(f"worker.actor.global_batch_size={size} cannot be shared by {shown}; nearest: {near}")


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))


def _check_lengths(config: Config) -> None:
    data, length = config.data, config.worker.rollout.max_model_len
    if data.box_side is not None and data.box_side < 1:
        raise ConfigError(f"data.box_side={data.box_side} is below 1")
    needed = data.max_prompt_length + data.max_response_length
    if length is not None and length < needed:
        lengths = f"max_prompt_length + max_response_length = {needed}"
        raise ConfigError(f"worker.rollout.max_model_len={length} is below {lengths}")
    if not data.min_pixels <= data.keyframe_resize**2 <= data.max_pixels:
        side, bounds = data.keyframe_resize, f"data.min_pixels={data.min_pixels} and data.max_pixels={data.max_pixels}"
        resized = "the model would see another size than its boxes are in"
        raise ConfigError(f"data.keyframe_resize={side} gives {side**2} pixels, outside {bounds}: {resized}")
    if not 0 <= config.algorithm.overlong_buffer <= data.max_response_length:
        raise ConfigError("algorithm.overlong_buffer must lie between 0 and data.max_response_length")
