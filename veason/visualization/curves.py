"""Line plots of metrics over steps, with colours that colour-blind people tell apart and legends beside the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's, darkest first: on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")

Curve = Sequence[float] | tuple[Sequence[float], Sequence[float]]


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of some inches and its axes; not pyplot's, so it is safe in threads and needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def save_curves(path: str | PathLike[str], curves: Mapping[str, Curve], title: str = "", smooth: int = 1) -> Path:
    """Writes a line plot with its legend below the axes, making the folder; returns the path.

    Args:
        curves: name -> values by step (from 1), or (steps, values). A value that is NaN leaves a gap.
        smooth: width in steps of a running mean; with more than 1 the raw values are drawn pale behind it.
    """
    figure, axes = new_figure(7, 4.4)
    axes.set(title=title, xlabel="step")
    for number, (name, curve) in enumerate(curves.items()):
        steps, values = curve if isinstance(curve, tuple) else (range(1, len(curve) + 1), curve)
        colour = COLOURS[number % len(COLOURS)]
        style = "-" if number < len(COLOURS) else "--"
        marker = "o" if len(steps) < 2 else None  # a line of one point is not seen
        axes.plot(steps, running_mean(values, smooth), style, label=name, color=colour, marker=marker)
        if smooth > 1:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    if len(curves) > 1 or (curves and not title):
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of each value and up to width - 1 before it; NaN counts as missing."""
    series = np.asarray(values, dtype=float)
    windows = [series[max(0, end - width) : end] for end in range(1, len(series) + 1)]
    return np.array([np.nan if np.isnan(window).all() else np.nanmean(window) for window in windows])
