"""What line plots of metrics share: colours that colour-blind people tell apart, axes, a running mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's, darkest first: on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")


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


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of each value and up to width - 1 before it; NaN counts as missing."""
    series = np.asarray(values, dtype=float)
    windows = [series[max(0, end - width) : end] for end in range(1, len(series) + 1)]
    return np.array([np.nan if np.isnan(window).all() else np.nanmean(window) for window in windows])
