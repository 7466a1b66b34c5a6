"""Curves and heat maps of a training run as SVG pictures, for light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from veason.visualization.curves import COLOURS, new_figure, running_mean
from veason.visualization.drawing import data_url
from verl.metric_info import find_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]  # of metrics.jsonl or histograms.jsonl

SIZE = 4.6, 3.0  # inches
TEXT, LINE = "#1b1b1b", "#b4b4b4"  # replaced on dark pages
DARK = {TEXT: "#e6e6e6", LINE: "#555555", COLOURS[0]: "#4aa3e0", COLOURS[6]: "#a8a8a8"}
BINS = 24  # of a heat map


@dataclass(frozen=True)
class ChartPanel:
    """A chart: its title and the metrics that it shows, as regular expressions of whole names."""

    title: str
    metrics: tuple[str, ...]


PANELS = (
    ChartPanel("Reward", ("reward/mean", "val/reward/mean")),
    ChartPanel("Reward parts", (r"rewards/\w+/mean",)),
    ChartPanel("Reward parts, validation", (r"val/rewards/\w+/mean",)),
    ChartPanel("Fine-tuning loss", ("loss", "val/loss")),
    ChartPanel("KL to the reference", ("actor/kl",)),
    ChartPanel("Entropy", ("actor/entropy",)),
    ChartPanel("Response length", ("response/mean", "response/max", "val/response/mean")),
    ChartPanel("Failures and truncation", ("parse_failure/any", "val/parse_failure/any", "response/truncated")),
    ChartPanel("Signal within groups", ("reward/group_std", "reward/frac_zero_std")),
    ChartPanel("Clip share", ("actor/pg_clipfrac", "actor/pg_clipfrac_lower")),
    ChartPanel("Log-probability gap", ("rollout/log_prob_gap",)),
    ChartPanel("Gradient norm", ("actor/grad_norm",)),
    ChartPanel("Learning rate", ("actor/lr",)),
    ChartPanel("Speed", ("perf/tokens_per_second", "perf/rollout_tokens_per_second", "perf/update_tokens_per_second")),
    ChartPanel("Share of the GPUs' peak", (r"perf/mfu(_\w+)?",)),
    ChartPanel("Time of a step", ("timing_s/step", r"timing_s/(rollout|score_wait|ref|old_log_prob|update)")),
    ChartPanel("Peak memory", (r"memory/peak_\w+_gib",)),
)
DISTRIBUTIONS = {"reward": "Rewards", "response": "Response lengths, tokens", "advantage": "Advantages"}


def curve_charts(runs: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """The panels that some run has metrics for.

    Args:
        runs: title -> rows of metrics.jsonl; the first is drawn solid, a second one dashed.

    Returns:
        Per panel `title`, `url` of the picture, and `metrics`: name, first, last and extreme value of the first run,
        unit, meaning, healthy value.
    """
    charts = []
    for panel in PANELS:
        known = dict.fromkeys(name for rows in runs.values() for row in rows for name in row)
        names = [name for pattern in panel.metrics for name in known if re.fullmatch(pattern, name)]
        if names:
            url = svg_url(draw_panel(panel.title, names, runs))
            first = next(iter(runs.values()))
            charts.append(
                {"title": panel.title, "url": url, "metrics": [describe_metric(name, first) for name in names]}
            )
    return charts


def metric_series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [float(step) for step, _ in found], [float(value) for _, value in found]


def describe_metric(name: str, rows: Rows) -> dict[str, str]:
    """A metric's numbers in a run, and what docs/metrics.md says of it."""
    _, values = metric_series(rows, name)
    info = find_metric(name)
    numbers = {"first": f"{values[0]:.4g}", "last": f"{values[-1]:.4g}"} if values else {"first": "-", "last": "-"}
    numbers |= {"low": f"{min(values):.4g}", "high": f"{max(values):.4g}"} if values else {"low": "-", "high": "-"}
    texts = {"unit": info.unit, "meaning": info.meaning, "healthy": info.healthy} if info else {}
    return {"name": name, "unit": "", "meaning": "", "healthy": ""} | numbers | texts


def draw_panel(title: str, names: Sequence[str], runs: Mapping[str, Rows]) -> Figure:
    """One chart: a colour per metric, a line style per run; raw values pale behind a running mean."""
    figure, axes = _figure(title)
    units = {info.unit for name in names if (info := find_metric(name))}
    axes.set(xlabel="step", ylabel=units.pop() if len(units) == 1 else "")
    single = len(names) == 1
    drawn = 0
    for run_number, (run, rows) in enumerate(runs.items()):
        for number, name in enumerate(names):
            steps, values = metric_series(rows, name)
            if not values:
                continue
            drawn += 1
            colour = COLOURS[(run_number if single else number) % len(COLOURS)]
            label = run if single else name if len(runs) == 1 else f"{name}, {run}"
            width = max(1, len(values) // 20)
            style = "--" if run_number else "-"
            marker = "o" if len(values) < 12 else None
            axes.plot(steps, running_mean(values, width), style, color=colour, label=label, marker=marker, markersize=3)
            if width > 1:
                axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7)
    if drawn > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9.5, labelcolor=TEXT)
    if all(value == 0 for rows in runs.values() for name in names for value in metric_series(rows, name)[1]):
        axes.set_ylim(-0.05, 1.0)
    return figure


def heat_maps(rows: Rows) -> list[dict[str, str]]:
    """How the distributions of histograms.jsonl move over the steps: `title` and `url` of each."""
    maps = []
    for name, title in DISTRIBUTIONS.items():
        found = [row for row in rows if name in row]
        if not found:
            continue
        low, high = min(row[name]["low"] for row in found), max(row[name]["high"] for row in found)
        edges = np.linspace(low, high, BINS + 1)
        shares = np.zeros((BINS, len(found)))
        for column, row in enumerate(found):
            own = np.linspace(row[name]["low"], row[name]["high"], len(row[name]["counts"]) + 1)
            counts, _ = np.histogram((own[:-1] + own[1:]) / 2, bins=edges, weights=row[name]["counts"])
            shares[:, column] = counts / max(counts.sum(), 1)
        figure, axes = _figure(title)
        steps = np.array([row["step"] for row in found], dtype=float)
        borders = np.concatenate([[steps[0] - 0.5], (steps[1:] + steps[:-1]) / 2, [steps[-1] + 0.5]])
        drawn = axes.pcolormesh(borders, edges, shares, cmap="cividis", vmin=0, rasterized=True)
        axes.set(xlabel="step")
        axes.grid(visible=False)
        bar = figure.colorbar(drawn, ax=axes, label="share of responses")
        bar.ax.tick_params(colors=TEXT, labelsize=9.5)
        bar.ax.yaxis.label.set(color=TEXT, fontsize=10)
        maps.append({"title": title, "url": svg_url(figure)})
    return maps


def svg_url(figure: Figure) -> str:
    """The figure as an SVG data URL, whose text and lines are light on a dark page."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    rules = [
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    svg = re.sub(r"(<svg[^>]*>)", lambda match: match[1] + style, buffer.getvalue(), count=1)
    return data_url(svg[svg.index("<svg") :].encode(), "image/svg+xml")


def _figure(title: str) -> tuple[Figure, Any]:
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(*SIZE)
    axes.set_title(title, fontsize=12, color=TEXT)
    axes.tick_params(colors=TEXT, labelsize=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    for part in (axes.xaxis, axes.yaxis):
        part.label.set(color=TEXT, fontsize=10)
        part.offsetText.set(color=TEXT, fontsize=9.5)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    axes.grid(color=LINE, alpha=0.5)
    return figure, axes
