"""An estimator, a loss, a KL penalty or a logger that the run could not call is refused before a model is loaded."""

# ruff: noqa: ARG005

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from verl.config import Config, ConfigError, override
from verl.config.checks import check_config
from verl.trainer.loggers import Logger


class NoLogger:
    def __init__(self, folder, config, steps): ...


class NoArguments(Logger):
    def __init__(self): ...


MINE = SimpleNamespace(
    estimator=lambda rewards, mask, index, scale=1.0: (rewards, rewards),
    of_a_part=lambda context: 0.0,
    with_a_critic=lambda rewards, mask, values: (rewards, rewards),
    loss=lambda log_probs, old, advantages, mask, *, clip_low=0.2, clip_high=0.2, clip_dual=None, weights=None: None,
    loss_of_anything=lambda *given, **options: None,
    loss_without_clip=lambda log_probs, old, advantages, mask: None,
    penalty=lambda log_probs, ref_log_probs: log_probs,
    penalty_of_one=lambda log_probs: log_probs,
    Mine=type("Mine", (Logger,), {}),
    NoLogger=NoLogger,
    NoArguments=NoArguments,
)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_project", MINE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("algorithm.adv_estimator", "estimator"),
        ("worker.actor.policy_loss", "loss"),
        ("worker.actor.policy_loss", "loss_of_anything"),
        ("worker.actor.kl_loss_type", "penalty"),
        ("trainer.logger", "Mine"),
    ],
)
def test_what_can_be_called_is_accepted(key: str, name: str) -> None:
    check_config(configured(key, name))


@pytest.mark.parametrize(
    ("key", "name", "reason"),
    [
        ("algorithm.adv_estimator", "of_a_part", r"an estimator takes \(rewards, mask, \.\.\.\), not \(context\)"),
        ("algorithm.adv_estimator", "with_a_critic", "it asks for values; an estimator can ask for index, baselines"),
        ("algorithm.adv_estimator", "nothing", "cannot be imported"),
        ("worker.actor.policy_loss", "of_a_part", r"it is called with \(log_probs, old_log_probs, .*too many"),
        ("worker.actor.policy_loss", "loss_without_clip", "unexpected keyword argument 'clip_low'"),
        ("worker.actor.kl_loss_type", "penalty_of_one", r"it is called with \(log_probs, ref_log_probs\)"),
        ("trainer.logger", "loss", "a logger is a class derived from"),
        ("trainer.logger", "NoLogger", "it has no metrics, val_generations, close"),
        ("trainer.logger", "NoArguments", r"it is called with \(folder, config, steps\)"),
    ],
)
def test_what_cannot_be_called_is_refused_in_one_line(key: str, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        check_config(configured(key, name))
    assert str(error.value).startswith(key) and "\n" not in str(error.value)


def configured(key: str, name: str) -> Config:
    path = f"my_project:{name}"
    return override(Config(), {key: [path] if key == "trainer.logger" else path})
