"""The range of every numeric key: a value outside it is refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from verl.config.schema import Config, ConfigError, value_of

POSITIVE = "(0, inf)"
NOT_NEGATIVE = "[0, inf)"
COUNT = "[1, inf)"
OFF_OR_COUNT = "-1 or [1, inf)"
SHARE = "[0, 1]"

# Intervals as in mathematics: [ and ] include the bound, ( and ) leave it out. "a or b" is a union. A list or a
# dictionary has the range of each of its values; null is the business of the key's type. NaN is in no range.
RANGES = {
    "data.sampled_frames": COUNT,
    "data.keyframe_resize": COUNT,
    "data.coordinate_range": COUNT,
    "data.max_pixels": COUNT,
    "data.min_pixels": COUNT,
    "data.max_prompt_length": COUNT,
    "data.max_response_length": COUNT,
    "data.rollout_batch_size": COUNT,
    "data.val_batch_size": COUNT,
    "data.val_max_samples": COUNT,
    "data.seed": "[0, 4294967295]",  # numpy's generators take 32 bits
    "algorithm.gamma": SHARE,
    "algorithm.kl_coef": NOT_NEGATIVE,
    "algorithm.max_sampling_rounds": COUNT,
    "algorithm.collapse_patience": COUNT,
    "algorithm.max_frac_nan": SHARE,
    "algorithm.overlong_buffer": NOT_NEGATIVE,
    "algorithm.overlong_penalty": NOT_NEGATIVE,
    "worker.actor.global_batch_size": COUNT,
    "worker.actor.micro_batch_size_per_device_for_update": COUNT,
    "worker.actor.micro_batch_size_per_device_for_experience": COUNT,
    "worker.actor.max_tokens_per_micro_batch": COUNT,
    "worker.actor.max_grad_norm": NOT_NEGATIVE,
    "worker.actor.kl_loss_coef": NOT_NEGATIVE,
    "worker.actor.entropy_coeff": "(-inf, inf)",
    "worker.actor.clip_ratio": "(0, 1]",
    "worker.actor.clip_ratio_low": "(0, 1]",
    "worker.actor.clip_ratio_high": POSITIVE,
    "worker.actor.clip_ratio_dual": "(1, inf)",
    "worker.actor.tis_cap": POSITIVE,
    "worker.actor.ppo_epochs": COUNT,
    "worker.actor.model.gradient_checkpointing_language": SHARE,
    "worker.actor.model.gradient_checkpointing_vision": SHARE,
    "worker.actor.model.lora_rank": "[0, 512]",  # vLLM's largest, verl.workers.vllm_lora
    "worker.actor.model.lora_alpha": POSITIVE,
    "worker.actor.model.lora_dropout": "[0, 1)",
    "worker.actor.optim.lr": NOT_NEGATIVE,
    "worker.actor.optim.betas": "[0, 1)",
    "worker.actor.optim.eps": POSITIVE,
    "worker.actor.optim.weight_decay": NOT_NEGATIVE,
    "worker.actor.optim.lr_warmup_steps_ratio": SHARE,
    "worker.actor.optim.min_lr_ratio": SHARE,
    "worker.actor.optim.training_steps": "-1 or [0, inf)",
    "worker.actor.fsdp.fsdp_size": OFF_OR_COUNT,
    "worker.ref.fsdp.fsdp_size": OFF_OR_COUNT,
    "worker.rollout.n": COUNT,
    "worker.rollout.temperature": "[0.01, inf)",  # vLLM raises a lower one to 0.01
    "worker.rollout.top_p": "(0, 1]",
    "worker.rollout.top_k": OFF_OR_COUNT,
    "worker.rollout.seed": NOT_NEGATIVE,
    "worker.rollout.val_temperature": "0 or [0.01, inf)",
    "worker.rollout.val_n": COUNT,
    "worker.rollout.tensor_parallel_size": COUNT,
    "worker.rollout.gpu_memory_utilization": "(0, 1]",
    "worker.rollout.cpu_kv_cache_gib": POSITIVE,
    "worker.rollout.kv_cache_gib": POSITIVE,
    "worker.rollout.max_num_batched_tokens": COUNT,
    "worker.rollout.max_num_seqs": COUNT,
    "worker.rollout.max_model_len": COUNT,
    "worker.rollout.prompt_length": OFF_OR_COUNT,
    "worker.rollout.response_length": OFF_OR_COUNT,
    "worker.reward.weights": NOT_NEGATIVE,
    "trainer.nnodes": COUNT,
    "trainer.n_gpus_per_node": COUNT,
    "trainer.phase_timeout": POSITIVE,
    "trainer.max_nonfinite_updates": COUNT,
    "trainer.max_restarts": NOT_NEGATIVE,
    "trainer.total_episodes": COUNT,
    "trainer.max_steps": COUNT,
    "trainer.val_generations_to_log_to_wandb": NOT_NEGATIVE,
    "trainer.log_rollouts_freq": "[-1, inf)",
    "trainer.log_rollouts_groups": COUNT,
    "trainer.test_freq": OFF_OR_COUNT,
    "trainer.save_freq": OFF_OR_COUNT,
    "trainer.save_limit": OFF_OR_COUNT,
    "sft.val_ratio": "[0, 1)",
    "sft.num_workers": NOT_NEGATIVE,
    "sft.val_generations": NOT_NEGATIVE,
}


def check_ranges(config: Config) -> None:
    """Raises a ConfigError for the first number that is outside its key's range."""
    for key, interval in RANGES.items():
        for name, value in _numbers(key, value_of(config, key)):
            if not in_range(value, interval):
                raise ConfigError(f"{name}={value} is outside its range, {interval}")


def in_range(value: float, interval: str) -> bool:
    """Whether a number lies in an interval such as "(0, 1]" or "-1 or [1, inf)"."""
    return any(_in_part(value, part) for part in interval.split(" or "))


def _in_part(value: float, part: str) -> bool:
    if part[0] not in "[(":
        return value == float(part)
    low, high = map(float, part[1:-1].split(","))
    above = value >= low if part[0] == "[" else value > low
    below = value <= high if part[-1] == "]" else value < high
    return above and below and not math.isnan(value)


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        yield from ((f"{key}.{name}", each) for name, each in value.items())
    elif isinstance(value, list):
        yield from ((f"{key}[{index}]", each) for index, each in enumerate(value))
    elif value is not None:
        yield key, value
