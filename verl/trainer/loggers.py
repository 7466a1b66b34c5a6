"""Loggers by name (`trainer.logger`): console, wandb, TensorBoard. One of your own is a subclass of `Logger`, chosen as
`package.module:name`.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from verl.config import Config, ConfigError

log = logging.getLogger(__name__)

# What the console shows of a step, and how; the files hold everything.
CONSOLE = {
    "reward/mean": ("reward", "{:.3f}"),
    "loss": ("loss", "{:.4f}"),
    "val/loss": ("val loss", "{:.4f}"),
    "val/reward/mean": ("val reward", "{:.3f}"),
    "actor/kl": ("kl", "{:.2e}"),
    "actor/grad_norm": ("grad norm", "{:.3f}"),
    "rollout/log_prob_gap": ("log-prob gap", "{:.1e}"),
    "response/mean": ("tokens", "{:.0f}"),
    "response/truncated": ("truncated", "{:.0%}"),
    "failure/any": ("unparsed", "{:.0%}"),
    "actor/lr": ("lr", "{:.2e}"),
    "perf/tokens_per_second": ("tokens/s", "{:.0f}"),
    "data/skipped": ("skipped", "{:.0f}"),
    "seconds/step": ("s", "{:.1f}"),
}


class Logger:
    """Where metrics go; this one drops them.

    Args:
        folder: the run's.
        steps: of the whole run.
    """

    def __init__(self, folder: Path, config: Config, steps: int) -> None: ...

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of one step."""

    def generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes validation answers, each with its sample, score and parts."""

    def close(self) -> None:
        """Flushes."""


class ConsoleLogger(Logger):
    """One line a step."""

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        self.steps = steps

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = [f"{label} {form.format(metrics[name])}" for name, (label, form) in CONSOLE.items() if name in metrics]
        print(f"step {step}/{self.steps}  " + "  ".join(shown), flush=True)


class WandbLogger(Logger):
    """A wandb run in `folder`/wandb; offline by WANDB_MODE, or where nobody is logged in (wandb would prompt)."""

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        import wandb

        mode: Literal["offline"] | None = None
        if "WANDB_MODE" not in os.environ and not _logged_in():
            message = "wandb: nobody is logged in, the run is kept offline in %s (`wandb login`, later `wandb sync`)"
            log.warning(message, folder / "wandb")
            mode = "offline"
        trainer = config.trainer
        self.run = wandb.init(
            project=trainer.project_name,
            name=trainer.experiment_name,
            dir=str(folder),
            config=asdict(config),
            mode=mode,
        )

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        columns: list[str | int] = list(rows[0])
        table = wandb.Table(columns=columns, data=[[row.get(str(column)) for column in columns] for row in rows])
        self.run.log({"val/generations": table}, step=step)

    def close(self) -> None:
        self.run.finish()


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc().authenticators(host) is not None
    except FileNotFoundError:  # nobody ever logged in anywhere on this machine
        return False


class TensorBoardLogger(Logger):
    """Scalars in `folder`/tensorboard."""

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            install = "which is not installed: pip install tensorboard"
            raise ConfigError(f"trainer.logger names tensorboard, {install}") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()
