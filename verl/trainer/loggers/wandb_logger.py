"""Weights & Biases."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from verl.config import Config
from verl.trainer.loggers.base import Logger
from verl.trainer.run_info import RunInfo

log = logging.getLogger(__name__)


class WandbLogger(Logger):
    """A wandb run in `folder`/wandb; offline by WANDB_MODE, or where nobody is logged in (wandb would prompt).

    A resumed run keeps its run id (an offline one too: `wandb sync` joins its parts). Steps are the x axis as the
    metric `step`: wandb's own count cannot go back to the checkpoint's.
    """

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        if "WANDB_MODE" not in os.environ and not _logged_in():
            message = "wandb: nobody is logged in, the run is kept offline in %s (`wandb login`, later `wandb sync`)"
            log.warning(message, folder / "wandb")
            offline = True
        info = RunInfo.read(folder)
        self.run = wandb.init(
            project=info.project,
            name=info.name,
            id=info.id,
            resume=None if offline else "allow",
            dir=str(folder),
            config=info.config,
            mode="offline" if offline else None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run.define_metric("*", step_metric="step")
        print(f"wandb: {folder / 'wandb' if offline else self.run.url}", flush=True)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({"step": step} | dict(metrics))

    def val_generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self._table("val/generations", step, rows)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        import wandb

        found = {f"histogram/{name}": wandb.Histogram(numbers) for name, numbers in values.items()}
        self.run.log({"step": step} | found)

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        flat = [
            {key: value for key, value in row.items() if key not in ("parts", "pictures")}
            | row["parts"]
            | {name: wandb.Image(str(path)) for name, path in row["pictures"].items()}
            for row in rows
        ]
        self._table("rollouts", step, flat)

    def close(self) -> None:
        self.run.finish()

    def _table(self, name: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        columns: list[str | int] = list(dict.fromkeys(column for row in rows for column in row))
        table = wandb.Table(columns=columns, data=[[row.get(str(column)) for column in columns] for row in rows])
        self.run.log({"step": step, name: table})


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc().authenticators(host) is not None
    except FileNotFoundError:  # nobody ever logged in anywhere on this machine
        return False
