"""Combinations that cannot run, found before any model is loaded. Each check names the keys and what would be right."""

from __future__ import annotations

from collections.abc import Iterable

from verl.config.name_checks import check_names
from verl.config.ranges import check_ranges
from verl.config.schema import Config, ConfigError, value_of
from verl.config.worker_sections import ActorConfig
from verl.registry import suggest

DTYPES = ("bf16", "fp16", "fp32")
CHOICES = {
    "data.on_bad_sample": ("raise", "skip"),
    "data.timestamp_mode": ("absolute", "relative"),
    "data.anchor_frame": ("largest", "first"),
    "worker.reward.on_tracker_error": ("raise", "skip"),
    "worker.reward.on_scorer_error": ("raise", "skip"),
    "worker.actor.optim.lr_scheduler_type": ("constant", "cosine", "linear"),
    "worker.actor.model.attn_implementation": ("auto", "flash_attention_4", "flex_attention", "sdpa"),
    "worker.actor.fsdp.mp_param_dtype": DTYPES,
    "worker.actor.fsdp.mp_reduce_dtype": DTYPES,
    "worker.actor.fsdp.torch_dtype": (None, *DTYPES),
    "worker.ref.fsdp.mp_param_dtype": DTYPES,
    "worker.ref.fsdp.mp_reduce_dtype": DTYPES,
    "worker.ref.fsdp.torch_dtype": (None, *DTYPES),
    "worker.rollout.dtype": DTYPES,
    "trainer.device": ("cuda", "cpu", "auto"),
    "trainer.best_mode": ("max", "min"),
    "trainer.save_dtype": (None, *DTYPES),
    "trainer.resume_mode": ("disable", "auto"),
}
GROUP_ESTIMATORS = ("grpo", "dr_grpo", "rloo", "grpo_certainty")  # a group of one would keep its score
MAX_SEQUENCE_CLIP = 0.05  # of GSPO, whose paper has 4e-4


def check_config(config: Config) -> None:
    """Refuses what cannot run.

    Raises:
        ConfigError: one line, for the first thing found.
    """
    check_ranges(config)
    for key, valid in CHOICES.items():
        check_choice(key, value_of(config, key), valid)
    _check_actor(config)
    _check_sampling(config)
    check_names(config)
    from verl.algorithms.aggregation import AGGREGATIONS  # here: torch takes seconds

    check_choice("worker.actor.loss_agg_mode", config.worker.actor.loss_agg_mode, AGGREGATIONS)
    _check_batches(config)
    _check_lengths(config)


def check_choice(key: str, value: object, valid: Iterable[str | None]) -> None:
    """Raises a ConfigError that lists the valid values, with the nearest."""
    valid = list(valid)
    if value not in valid:
        names = [name for name in valid if name is not None]
        raise ConfigError(f"{key}: {value!r} is none of {', '.join(names)}{suggest(str(value), names)}")


def _check_actor(config: Config) -> None:
    actor = config.worker.actor
    if len(actor.optim.betas) != 2:
        raise ConfigError(f"worker.actor.optim.betas must be two numbers, not {actor.optim.betas}")
    for key in ("torch_dtype", "mp_param_dtype", "mp_reduce_dtype"):
        if getattr(actor.fsdp, key) == "fp16":
            flushed = "without loss scaling small gradients are 0 in fp16 (23 % of the output layer's at 65,000 tokens)"
            raise ConfigError(f"worker.actor.fsdp.{key}=fp16 cannot be trained in: {flushed}; set bf16 or fp32")
    if actor.policy_loss.startswith("gspo"):
        _check_sequence_clip(actor)
    if config.algorithm.kl_coef != 0:
        raise ConfigError(
            "algorithm.kl_coef (KL in the reward) must be 0: set worker.actor.use_kl_loss=true and "
            "worker.actor.kl_loss_coef"
        )


def _check_sequence_clip(actor: ActorConfig) -> None:
    """GSPO clips the mean ratio of a whole response, which stays far closer to 1 than a token's."""
    for key in ("clip_ratio", "clip_ratio_low", "clip_ratio_high"):
        value = getattr(actor, key)
        if value is not None and value > MAX_SEQUENCE_CLIP:
            own = "leave it null (3e-4 below and 4e-4 above)"
            raise ConfigError(
                f"worker.actor.{key}={value} would never clip the ratio of a whole response "
                f"(worker.actor.policy_loss={actor.policy_loss}): {own}, or set at most {MAX_SEQUENCE_CLIP}"
            )


def _check_sampling(config: Config) -> None:
    rollout = config.worker.rollout
    if rollout.val_n > 1 and rollout.val_temperature == 0:
        answers = f"worker.rollout.val_n={rollout.val_n} answers"
        raise ConfigError(f"{answers} would all be the greedy one: set worker.rollout.val_temperature")
    if config.algorithm.dynamic_sampling and rollout.n == 1:
        raise ConfigError("algorithm.dynamic_sampling leaves out equal scores, and worker.rollout.n=1 has no others")
    estimator = config.algorithm.adv_estimator
    if rollout.n == 1 and estimator in GROUP_ESTIMATORS:
        raise ConfigError(
            f"algorithm.adv_estimator={estimator} compares the answers of a prompt, and worker.rollout.n=1 gives one: "
            "set worker.rollout.n=2 or more, or algorithm.adv_estimator=remax or reinforce_plus_plus"
        )


def _check_batches(config: Config) -> None:
    trainer, actor, data = config.trainer, config.worker.actor, config.data
    workers = trainer.nnodes * trainer.n_gpus_per_node
    shown = f"trainer.nnodes x trainer.n_gpus_per_node = {workers} workers"
    size = config.worker.rollout.tensor_parallel_size
    if workers % size:
        near = _nearest_divisor(workers, size)
        raise ConfigError(f"worker.rollout.tensor_parallel_size={size} does not divide {shown}; nearest: {near}")
    hosted = trainer.n_gpus_per_node
    if trainer.nnodes > 1 and hosted % size and size % hosted:
        near = _nearest_divisor(hosted, size)
        group = f"worker.rollout.tensor_parallel_size={size} gives groups that lie on parts of two hosts"
        raise ConfigError(f"{group}, of trainer.n_gpus_per_node={hosted} workers each; nearest: {near}")
    for key in ("worker.actor.fsdp.fsdp_size", "worker.ref.fsdp.fsdp_size"):
        size = value_of(config, key)
        if size != -1 and (size < 1 or workers % size):
            near = _nearest_divisor(workers, size)
            raise ConfigError(f"{key}={size} does not divide {shown}; nearest: {near}, or -1 for all")
    size, batch = actor.global_batch_size, data.rollout_batch_size
    if batch % size or size % workers:
        whole = f"does not divide data.rollout_batch_size={batch}"
        reason = f"cannot be shared by {shown}" if size % workers else whole
        fits = _fitting_batches(batch, size, workers)
        raise ConfigError(f"worker.actor.global_batch_size={size} {reason}; what fits: {fits}")


def _fitting_batches(batch: int, size: int, workers: int) -> str:
    """The nearest valid overrides: of the update's batch alone where one fits, else of the rollout's too."""
    near = _nearest_divisor(batch // workers, round(size / workers)) * workers if batch % workers == 0 else 0
    if near:
        return f"worker.actor.global_batch_size={near}"
    near = max(1, round(size / workers)) * workers
    return f"worker.actor.global_batch_size={near} data.rollout_batch_size={max(1, round(batch / near)) * near}"


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))


def _check_lengths(config: Config) -> None:
    data, length = config.data, config.worker.rollout.max_model_len
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
