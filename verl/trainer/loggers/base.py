"""What a logger is, and the one for the console."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from verl.config import Config, ConfigError
from verl.metric_types import Progress
from verl.trainer.progress_bars import ProgressBars
from verl.trainer.run_info import RunInfo

# What the console shows of a step, and how; the files hold everything.
COLUMNS = {
    "reward/mean": ("reward", "{:.3f}"),
    "loss": ("loss", "{:.4f}"),
    "val/loss": ("val loss", "{:.4f}"),
    "val/reward/mean": ("val reward", "{:.3f}"),
    "actor/kl": ("kl", "{:.2e}"),
    "actor/grad_norm": ("grad norm", "{:.3f}"),
    "rollout/log_prob_gap": ("log-prob gap", "{:.1e}"),
    "response/mean": ("response", "{:.0f}"),
    "response/truncated": ("truncated", "{:.0%}"),
    "parse_failure/any": ("failure", "{:.0%}"),
    "actor/lr": ("lr", "{:.2e}"),
    "perf/tokens_per_second": ("tokens/s", "{:.0f}"),
    "data/skipped_samples": ("skipped", "{:.0f}"),
    "timing_s/step": ("s", "{:.1f}"),
}


class Logger:
    """Where the records of a run go; this one drops them. A logger of your own overrides what it takes.

    Args:
        folder: the run's; `RunInfo.read(folder)` gives its id and the step that it resumes at.
        steps: of the whole run.
    """

    def __init__(self, folder: Path, config: Config, steps: int) -> None: ...

    def begin(self) -> None:
        """The workers have started, the first step begins."""

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of one step."""

    def val_generations(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes validation answers, each with its sample, score and parts."""

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Takes the values of one step whose distribution is of interest: reward, response, advantage, float [n]."""

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes rows of rollouts/step_N.jsonl, one a response; `pictures` has name -> path, absolute here."""

    def show_progress(self, progress: Progress) -> None:
        """Takes how far the phases under way are, about once a second."""

    def close(self) -> None:
        """Flushes."""


def import_service(logger: str, module: str) -> Any:
    """The package of a logger. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = f"which is not installed: pip install {logger}"
        raise ConfigError(f"trainer.logger names {logger}, {install}") from error


def quartiles(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What stands for histograms where a service has none."""
    return {
        f"histogram/{name}_p{percent}": float(np.percentile(numbers, percent))
        for name, numbers in values.items()
        for percent in (25, 50, 75)
    }


class ConsoleLogger(Logger):
    """One line a step on standard output; on a terminal bars with the time left below it."""

    def __init__(self, folder: Path, config: Config, steps: int) -> None:
        self.steps = steps
        self.progress = ProgressBars(steps, RunInfo.read(folder).start)

    def begin(self) -> None:
        self.progress.begin()

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = [f"{label} {form.format(metrics[name])}" for name, (label, form) in COLUMNS.items() if name in metrics]
        self.progress.step(step)
        if left := self.progress.time_left:
            shown.append(f"left {left}")
        tqdm.write(f"step {step}/{self.steps}  " + "  ".join(shown), file=sys.stdout)
        sys.stdout.flush()

    def show_progress(self, progress: Progress) -> None:
        self.progress.show_progress(progress)

    def close(self) -> None:
        self.progress.close()
