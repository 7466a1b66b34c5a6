"""Every numeric key has a range, and a value outside it is refused with key and range before anything is loaded."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator

import pytest

from verl.config import Config, ConfigError, load_config
from verl.config.ranges import RANGES, in_range


def numeric_keys(section: type, prefix: str = "") -> Iterator[str]:
    """Keys whose type is a number, or holds some; dictionaries of the user's own options aside."""
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            yield from numeric_keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif {int, float} & {kind, *typing.get_args(kind)}:
            yield f"{prefix}{name}"


def test_every_numeric_key_has_a_range_and_every_range_a_key() -> None:
    assert sorted(numeric_keys(Config)) == sorted(RANGES)


def test_the_defaults_are_in_range() -> None:
    load_config([])


@pytest.mark.parametrize(
    ("override", "key", "interval"),
    [
        ("worker.actor.max_grad_norm=-1", "worker.actor.max_grad_norm=-1.0", "[0, inf)"),
        ("worker.rollout.gpu_memory_utilization=2", "worker.rollout.gpu_memory_utilization=2.0", "(0, 1]"),
        ("worker.rollout.top_p=0", "worker.rollout.top_p=0.0", "(0, 1]"),
        ("worker.actor.clip_ratio=-0.2", "worker.actor.clip_ratio=-0.2", "(0, 1]"),
        ("worker.actor.clip_ratio_high=-0.2", "worker.actor.clip_ratio_high=-0.2", "(0, inf)"),
        ("worker.actor.optim.lr_warmup_steps_ratio=5", "worker.actor.optim.lr_warmup_steps_ratio=5.0", "[0, 1]"),
        ("worker.actor.model.lora_rank=-1", "worker.actor.model.lora_rank=-1", "[0, 512]"),
        ("worker.actor.optim.lr=nan", "worker.actor.optim.lr=nan", "[0, inf)"),
        ("worker.actor.kl_loss_coef=inf", "worker.actor.kl_loss_coef=inf", "[0, inf)"),
        ("worker.actor.optim.betas=[0.9,1.0]", "worker.actor.optim.betas[1]=1.0", "[0, 1)"),
        ("worker.reward.weights.format=nan", "worker.reward.weights.format=nan", "[0, inf)"),
        ("worker.reward.weights.spatial=-1", "worker.reward.weights.spatial=-1.0", "[0, inf)"),
        ("worker.rollout.val_temperature=0.005", "worker.rollout.val_temperature=0.005", "0 or [0.01, inf)"),
        ("trainer.save_freq=0", "trainer.save_freq=0", "-1 or [1, inf)"),
        ("data.seed=-1", "data.seed=-1", "[0, 4294967295]"),
    ],
)
def test_a_value_outside_its_range_is_refused(override: str, key: str, interval: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([override])
    assert str(error.value) == f"{key} is outside its range, {interval}"


@pytest.mark.parametrize("value", ["0", "null", "0.5"])
def test_no_clipping_is_a_choice(value: str) -> None:
    load_config([f"worker.actor.max_grad_norm={value}"])


def test_intervals_read_as_in_mathematics() -> None:
    assert in_range(1, "(0, 1]") and not in_range(0, "(0, 1]") and not in_range(float("inf"), "[0, inf)")
    assert in_range(-1, "-1 or [1, inf)") and not in_range(0, "-1 or [1, inf)")


@pytest.mark.parametrize("key", ["torch_dtype", "mp_param_dtype", "mp_reduce_dtype"])
def test_training_in_fp16_is_refused_with_the_reason(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"worker\.actor\.fsdp\.{key}=fp16 .*loss scaling.*bf16 or fp32"):
        load_config([f"worker.actor.fsdp.{key}=fp16"])
    load_config([f"worker.ref.fsdp.{key}=fp16", "worker.rollout.dtype=fp16"])  # forward passes alone


def test_gspo_refuses_a_clip_range_that_never_clips() -> None:
    with pytest.raises(ConfigError, match=r"worker\.actor\.clip_ratio=0\.2 would never clip .*3e-4 below and 4e-4"):
        load_config(["worker.actor.policy_loss=gspo", "worker.actor.clip_ratio=0.2"])
    load_config(["worker.actor.policy_loss=gspo"])
