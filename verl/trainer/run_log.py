"""Where a run's figures go: the console, metrics.jsonl in the run's folder, and wandb or TensorBoard on request."""

from __future__ import annotations

import json
import logging
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from verl.protocol import GroupResult
from verl.trainer.plan import Plan

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
    "response/truncated": ("cut", "{:.0%}"),
    "failure/any": ("unread", "{:.0%}"),
    "actor/lr": ("lr", "{:.2e}"),
    "perf/tokens_per_second": ("tokens/s", "{:.0f}"),
    "data/skipped": ("skipped", "{:.0f}"),
    "seconds/step": ("s", "{:.1f}"),
}


class RunLog:
    """Writes figures step by step; `metrics.jsonl` and `generations.jsonl` are always kept in `folder`.

    Attributes:
        left_out: sample id -> reason, of the samples that were skipped.

    Args:
        folder: the run's folder.
        sinks: any of console, wandb, tensorboard.
        project, experiment: names in wandb.
        plan: its steps are shown on the console, its configuration is kept by wandb. Figures beyond its start, from
            before an interruption, are removed from the files, unless it only validates.
    """

    def __init__(self, folder: str | Path, sinks: Sequence[str], project: str, experiment: str, plan: Plan) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sinks, self.steps = sinks, plan.steps
        self.left_out: dict[str, str] = {}
        if not plan.val_only:
            for name in ("metrics.jsonl", "generations.jsonl"):
                _keep_until(self.folder / name, plan.start)
        self._wandb = _open_wandb(self.folder, project, experiment, plan.config) if "wandb" in sinks else None
        self._tensorboard = _open_tensorboard(self.folder) if "tensorboard" in sinks else None

    def metrics(self, step: int, figures: dict[str, float]) -> None:
        """Writes the figures of one step everywhere."""
        _append(self.folder / "metrics.jsonl", {"step": step} | figures)
        if "console" in self.sinks:
            shown = [
                f"{label} {form.format(figures[name])}" for name, (label, form) in CONSOLE.items() if name in figures
            ]
            print(f"step {step}/{self.steps}  " + "  ".join(shown), flush=True)
        if self._wandb is not None:
            self._wandb.log(figures, step=step)
        if self._tensorboard is not None:
            for name, value in figures.items():
                self._tensorboard.add_scalar(name, value, step)

    def generations(self, step: int, groups: Sequence[GroupResult]) -> None:
        """Keeps some answers with their scores: the first response of each group."""
        rows = [
            {
                "sample_id": g.sample_id,
                "response": g.responses[0],
                "total": g.totals[0],
                "failure": g.failures[0],
                **g.parts[0],
            }
            for g in groups
        ]
        for row in rows:
            _append(self.folder / "generations.jsonl", {"step": step} | row)
        if self._wandb is not None and rows:
            import wandb

            columns: list[str | int] = list(rows[0])
            self._wandb.log(
                {
                    "val/generations": wandb.Table(
                        columns=columns, data=[[row.get(str(column)) for column in columns] for row in rows]
                    )
                },
                step=step,
            )

    def skipped(self, samples: dict[str, str]) -> None:
        """Keeps the names and reasons of samples that were left out in `skipped.txt`, which data.exclude takes."""
        if samples != self.left_out:
            lines = (f"{name}  # {reason}\n" for name, reason in sorted(samples.items()))
            (self.folder / "skipped.txt").write_text("".join(lines), encoding="utf-8")
            self.left_out = samples

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flushes what is open."""
        if self._wandb is not None:
            self._wandb.finish()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, in order of their steps."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _keep_until(path: Path, step: int) -> None:
    """Drops rows after `step`, and a last line that an interruption cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            log.warning("%s: dropped a line that was cut short", path)
            continue
        if row["step"] <= step:
            kept.append(line)
    aside = path.with_suffix(".partial")
    aside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(aside, path)


def _open_wandb(folder: Path, project: str, experiment: str, config: dict[str, Any]) -> Any:
    """A wandb run in `folder`/wandb; offline where WANDB_MODE says so, or where nobody is logged in (wandb would stop
    to ask).
    """
    import wandb

    mode: Literal["offline"] | None = None
    if "WANDB_MODE" not in os.environ and not _logged_in():
        log.warning(
            "wandb: nobody is logged in, the run is kept offline in %s (`wandb login`, later `wandb sync`)",
            folder / "wandb",
        )
        mode = "offline"
    return wandb.init(project=project, name=experiment, dir=str(folder), config=config, mode=mode)


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc().authenticators(host) is not None
    except FileNotFoundError:  # nobody ever logged in anywhere on this machine
        return False


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError(
            "trainer.logger names tensorboard, which is not installed: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
