"""The root of the configuration, changes to a key, and the error that every part of it raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from verl.config.sections import AlgorithmConfig, DataConfig, SFTConfig, TrainerConfig
from verl.config.worker_sections import WorkerConfig

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line for the person who wrote it."""


class OptionError(ConfigError):
    """An option that what is chosen by name does not take, or one that it needs: wrong on every machine."""


@dataclass(frozen=True)
class Config:
    """A run. Frozen: what follows from other keys is derived once, by `verl.config.derived_values`."""

    data: DataConfig = field(default_factory=DataConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)


def override(config: T, changes: Mapping[str, Any]) -> T:
    """A copy of a section with other values at dotted keys: `override(config, {"trainer.device": "cpu"})`."""
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        value = override(getattr(config, head), {rest: value}) if rest else value
        config = replace(config, **{head: value})  # type: ignore[type-var]
    return config


def value_of(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config
