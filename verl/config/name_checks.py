"""Estimators, losses, KL penalties and loggers by name: found, and callable as the run will call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from verl.config.schema import Config, ConfigError
from verl.registry import load_by_name

LOGGERS = {
    "console": "verl.trainer.loggers:ConsoleLogger",
    "tensorboard": "verl.trainer.loggers.tensorboard_logger:TensorBoardLogger",
    "wandb": "verl.trainer.loggers.wandb_logger:WandbLogger",
    "swanlab": "verl.trainer.loggers.swanlab_logger:SwanLabLogger",
    "mlflow": "verl.trainer.loggers.mlflow_logger:MLflowLogger",
}
LOGGER_METHODS = ("metrics", "val_generations", "close")


def check_names(config: Config) -> None:
    """Raises a ConfigError for a name that leads to nothing, or to something that the run could not call."""
    from verl.algorithms.advantages import (
        ADVANTAGE_ESTIMATORS,  # here: torch takes seconds, and a misspelt key is found before
    )
    from verl.algorithms.kl import KL_PENALTIES
    from verl.algorithms.losses import POLICY_LOSSES

    actor = config.worker.actor
    _check("algorithm.adv_estimator", config.algorithm.adv_estimator, ADVANTAGE_ESTIMATORS, _check_estimator)
    _check("worker.actor.kl_loss_type", actor.kl_loss_type, KL_PENALTIES, _check_penalty)
    _check("worker.actor.policy_loss", actor.policy_loss, POLICY_LOSSES, _check_loss)
    for name in config.trainer.logger:
        _check("trainer.logger", name, LOGGERS, _check_logger)


def _check(key: str, name: str, table: Mapping[str, Any], check: Callable[[Any], None]) -> None:
    if name in table:
        return
    try:
        found = load_by_name(name, table, key)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        check(found)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {name} cannot be used: {error}") from error


def _check_estimator(found: Any) -> None:
    from verl.algorithms.advantages import INPUTS

    parameters = inspect.signature(found).parameters.values()
    asked = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if asked[:2] != ["rewards", "mask"]:
        raise TypeError(f"an estimator takes (rewards, mask, ...), not ({', '.join(asked)})")
    if unknown := [name for name in asked[2:] if name not in INPUTS]:
        raise TypeError(f"it asks for {', '.join(unknown)}; an estimator can ask for {', '.join(INPUTS)}")


def _check_penalty(found: Any) -> None:
    _bind(found, "(log_probs, ref_log_probs)", 2)


def _check_loss(found: Any) -> None:
    options = dict.fromkeys(("clip_low", "clip_high", "clip_dual", "weights"))
    shown = f"(log_probs, old_log_probs, advantages, mask, {', '.join(options)})"
    _bind(found, shown, 4, **options)


def _check_logger(found: Any) -> None:
    if not inspect.isclass(found):
        raise TypeError("a logger is a class derived from verl.trainer.loggers.Logger")
    if missing := [name for name in LOGGER_METHODS if not hasattr(found, name)]:
        raise TypeError(f"it has no {', '.join(missing)}: derive it from verl.trainer.loggers.Logger")
    _bind(found, "(folder, config, steps)", 3)


def _bind(found: Any, shown: str, positions: int, **options: object) -> None:
    """Raises a TypeError unless `found` can be called with so many positional arguments and these keywords."""
    try:
        inspect.signature(found).bind(*range(positions), **options)
    except TypeError as error:
        raise TypeError(f"it is called with {shown}: {error}") from error
