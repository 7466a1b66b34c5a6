"""Curves of a run's metrics.jsonl as a picture.

python3 -m verl.trainer.curves checkpoints/veason_r1/run reward.png [reward/mean part/spatial_mean ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from verl.trainer.run_log import read_metrics

REWARD = (
    "reward/mean",
    "val/reward/mean",
    "part/format_mean",
    "part/keyframe_mean",
    "part/spatial_mean",
    "part/consistency_mean",
)


def plot_metrics(folder: str | Path, output: str | Path, names: Sequence[str] = REWARD) -> Path:
    """Draws the named figures over the steps, in one plot: the reward and its parts unless others are named.

    Raises:
        ValueError: none of the names is in the run's metrics.jsonl.
    """
    rows = read_metrics(folder)
    series = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
    if not any(series.values()):
        raise ValueError(f"{folder}/metrics.jsonl has none of {', '.join(names)}")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        if points:
            axes.plot(
                *zip(*points),
                label=name,
                linewidth=2 if name == "reward/mean" else 1,
                marker="o" if len(points) < 30 else None,
            )
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(output, dpi=120)
    return Path(output)


if __name__ == "__main__":
    print(plot_metrics(sys.argv[1], sys.argv[2], sys.argv[3:] or REWARD))
