"""SwanLab (swanlab.cn), from version 0.10 on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl.config import Config
from verl.trainer.loggers.base import Logger, import_service, quartiles
from verl.trainer.run_info import RunInfo


class SwanLabLogger(Logger):
    """An experiment in `folder`/swanlog; SWANLAB_MODE=online with SWANLAB_API_KEY sends it to the service, where a
    resumed run keeps its id. Without them it is kept offline (`swanlab sync`).
    """

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        self.swanlab = swanlab = import_service("swanlab", "swanlab")
        info = RunInfo.read(folder)
        mode = os.environ.get("SWANLAB_MODE") or ("online" if os.environ.get("SWANLAB_API_KEY") else "offline")
        resumed = {"id": info.id, "resume": "allow"} if mode == "online" else {}
        swanlab.init(
            project=info.project,
            name=info.name,
            log_dir=str(folder / "swanlog"),
            config=info.config,
            mode=mode,
            **resumed,
        )

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.swanlab.log(dict(metrics), step=step)

    def val_generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        texts = [self.swanlab.Text(row["response"], caption=f"{row['sample_id']}: {row['total']:.3f}") for row in rows]
        self.swanlab.log({"val/generations": texts}, step=step)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """SwanLab draws no histogram; quartiles show how a distribution moves."""
        self.swanlab.log(quartiles(values), step=step)

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        pictures = [
            self.swanlab.Image(str(path), caption=f"{row['sample_id']} {row['number']} {name}: {row['total']:.3f}")
            for row in rows
            for name, path in row["pictures"].items()
        ]
        if pictures:
            self.swanlab.log({"rollouts": pictures}, step=step)

    def close(self) -> None:
        self.swanlab.finish()
