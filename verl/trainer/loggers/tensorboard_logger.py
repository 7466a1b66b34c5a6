"""TensorBoard: scalars, histograms, validation answers and rollouts in `folder`/tensorboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from verl.config import Config
from verl.trainer.loggers.base import Logger, import_service
from verl.trainer.run_info import RunInfo


class TensorBoardLogger(Logger):
    """Resumed runs go on in the same folder: steps after the checkpoint are purged."""

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        tensorboard = import_service("tensorboard", "torch.utils.tensorboard")
        self.writer = tensorboard.SummaryWriter(str(folder / "tensorboard"), purge_step=RunInfo.read(folder).start + 1)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def val_generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            text = f"score {row['total']:.3f}, failure {row['failure']}\n\n" + row["response"].replace("<", "&lt;")
            self.writer.add_text(f"val/generations/{row['sample_id']}", text, step)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        for name, numbers in values.items():
            self.writer.add_histogram(f"histogram/{name}", numbers, step)

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            for name, path in row["pictures"].items():
                picture = np.asarray(Image.open(path).convert("RGB"))
                tag = f"rollouts/{row['phase']}/{row['sample_id']}/{row['number']}/{name}"
                self.writer.add_image(tag, picture, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()
