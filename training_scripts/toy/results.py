"""Writes the tables and plots of docs/toy_results.md from the runs of `training_scripts.toy.experiments`.

    python -m training_scripts.toy.results --runs outputs/toy/runs
    python -m training_scripts.toy.results --runs outputs/toy/runs --page docs/toy_results.md
    python -m training_scripts.toy.results --runs outputs/toy_qwen3_vl/runs --prefix qwen3_vl

It replaces the text between `<!-- begin NAME -->` and `<!-- end NAME -->`, and the plots in the page's folder. With a
prefix the blocks are `PREFIX scores` and so on, and there are no plots.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from matplotlib.figure import Figure

from training_scripts.toy.recipes import BASELINE, EXPERIMENTS
from training_scripts.toy.runs import ToyRun, read_runs
from veason.command_line import HelpFormatter, parse_arguments
from veason.visualization.curves import COLOURS

RunsByExperiment = Mapping[str, Sequence[ToyRun]]  # by experiment, in the order of EXPERIMENTS

LAST_STEPS = 10  # steps over which the end of a curve is averaged
SMOOTHING = 5  # steps of the moving average in plots

NEEDS = "needs a GPU, or an hour a run on two cores"  # marks commands that no test runs
SCORES = {  # columns of the evaluation's table -> column titles
    "Overall J&F": "J&F",
    "Referring J&F": "referring",
    "Reasoning J&F": "reasoning",
    "Absent J&F": "absent",
    "R binary": "R",
    "Absent R binary": "R, absent",
}
ANSWERS = {  # column titles -> kind of expression, name in `ToyRun.answers`
    "comparison, J&F": ("comparison", "JF"),
    "no box": ("comparison", "without_box"),
    "single target, J&F": ("single", "JF"),
    "extra box": ("single", "extra_box"),
    "several targets, J&F": ("several", "JF"),
    "absent: a box": ("absent", "extra_box"),
}
REWARD_CURVES = {"reward/mean": "reward (0 to 5)"} | {
    f"rewards/{name}/mean": f"{name} part" for name in ("format", "keyframe", "spatial", "consistency")
}
TRAINING_CURVES = {
    "actor/entropy": "entropy",
    "actor/kl": "KL to the SFT policy",
    "reward/frac_zero_std": "groups with equal rewards",
    "response/mean": "tokens per response",
    "response/truncated": "truncated responses",
    "rollout/log_prob_gap": "log-probability gap, vLLM to actor",
}
PLOTS = {  # title -> experiments, curves
    "GRPO": (("grpo",), REWARD_CURVES | TRAINING_CURVES),
    "ablations": (
        ("grpo", "no_keyframe", "no_spatial", "no_sam2", "no_kl"),
        REWARD_CURVES | {"actor/entropy": "entropy"},
    ),
    "variants": (("grpo", "strict", "lora", "dr_grpo", "dapo"), REWARD_CURVES | {"actor/entropy": "entropy"}),
}


def evaluated_runs(runs: Sequence[ToyRun]) -> RunsByExperiment:
    """The evaluated runs of each experiment."""
    found = {name: [run for run in runs if run.name == name and run.scores is not None] for name in EXPERIMENTS}
    return {name: group for name, group in found.items() if group}


def mean_and_std(values: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds, `57.1 ± 0.8`; the value alone where there is one seed."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{fmean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


def scores_table(runs: RunsByExperiment) -> str:
    """Per experiment the number of seeds, the columns of SCORES in percent, and the gain over the initial policy."""
    start = runs[BASELINE][0].scores["Overall J&F"] if BASELINE in runs else None
    rows = [["run", "seeds", *SCORES.values(), "gain in J&F"]]
    for name, group in runs.items():
        columns = [[run.scores.get(key) for run in group] for key in SCORES]
        gain = "" if start is None or name == BASELINE else mean_and_std([value - start for value in columns[0]])
        rows.append([EXPERIMENTS[name].title, str(len(group)), *map(mean_and_std, columns), gain])
    return markdown_table(rows)


def answers_table(runs: RunsByExperiment) -> str:
    """Per experiment the columns of ANSWERS in percent."""
    rows = [["run", *ANSWERS]]
    for name, group in runs.items():
        cells = [
            mean_and_std([100 * run.answers[kind][key] for run in group if kind in run.answers])
            for kind, key in ANSWERS.values()
        ]
        rows.append([EXPERIMENTS[name].title, *cells])
    return markdown_table(rows)


def curves_table(runs: RunsByExperiment, columns: Mapping[str, str]) -> str:
    """Per GRPO experiment the mean of each curve over its last steps and over seeds."""
    rows = [["run", *columns.values()]]
    for name, group in runs.items():
        if any(run.curve("reward/mean") for run in group):
            curves = [[curve for run in group if (curve := run.curve(key))] for key in columns]
            ends = [[fmean(value for _, value in curve[-LAST_STEPS:]) for curve in found] for found in curves]
            rows.append([EXPERIMENTS[name].title, *(f"{fmean(values):.3g}" if values else "-" for values in ends)])
    return markdown_table(rows)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def commands(runs: RunsByExperiment) -> str:
    """The machine of each stage, and the training command of each experiment's first seed, without its paths."""
    finished = [stage for group in runs.values() for run in group for stage in run.stages.items()]
    machines = {(name, stage["machine"]) for name, stage in finished}
    lines = []
    for group in runs.values():
        if group[0].command:
            arguments = group[0].command.split()[1:]  # without the interpreter
            arguments = [argument for argument in arguments if "/" not in argument or argument.startswith("config=")]
            command = " ".join(["python", *arguments])
            lines.append(" \\\n    ".join(textwrap.wrap(command, 110, break_long_words=False, break_on_hyphens=False)))
    listed = "\n".join(f"- {name}: {machine}" for name, machine in sorted(machines, reverse=True))
    return f'{listed}\n\n```bash title="{NEEDS}"\n' + "\n".join(lines) + "\n```"


def draw_curves(runs: RunsByExperiment, names: Sequence[str], keys: Mapping[str, str], path: Path) -> None:
    """Draws one panel per metric: for each experiment the mean over seeds, with the range as a band."""
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, (key, title) in zip(panels, keys.items()):
        for number, name in enumerate(names):
            curves = [curve for run in runs.get(name, ()) if (curve := run.curve(key))]
            if curves:
                length = min(map(len, curves))
                values = np.array([_smooth([value for _, value in curve[:length]]) for curve in curves])
                steps, colour = [step for step, _ in curves[0][:length]], COLOURS[number]
                panel.plot(steps, values.mean(0), label=EXPERIMENTS[name].title, linewidth=1.5, color=colour)
                panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        panel.set_title(title, fontsize=10)
        panel.grid(alpha=0.3)
        panel.set_xlabel("step")
    for panel in panels[len(keys) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _smooth(values: Sequence[float]) -> np.ndarray:
    """The moving average over each value and up to SMOOTHING - 1 before it."""
    return np.array([fmean(values[max(0, i + 1 - SMOOTHING) : i + 1]) for i in range(len(values))])


def write_page(runs: RunsByExperiment, page: Path, prefix: str = "") -> None:
    """Replaces the marked blocks of the page, and the plots in the folder of its name.

    Args:
        prefix: of the blocks' names, those of another model family; it has no plots.

    Raises:
        SystemExit: the page does not have each block once.
    """
    folder = page.with_suffix("")
    blocks = {
        "scores": scores_table(runs),
        "answers": answers_table(runs),
        "plots": "\n\n".join(f"![{title}]({folder.name}/{title.lower()}.png)" for title in PLOTS),
        "curves": curves_table(runs, REWARD_CURVES | TRAINING_CURVES),
        "commands": commands(runs),
    }
    plots = {} if prefix else PLOTS
    if prefix:
        blocks = {f"{prefix} {name}": block for name, block in blocks.items() if name != "plots"}
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"toy results: {page} has {text.count(begin)} blocks '{name}', not one")
        text = text[: text.index(begin) + len(begin)] + block + "\n" + text[text.index(end) :]
    for title, (names, keys) in plots.items():
        draw_curves(runs, names, keys, folder / f"{title.lower()}.png")
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--runs", type=Path, required=True, help="the output folder of training_scripts.toy.experiments"
    )
    parser.add_argument(
        "--page", type=Path, default=Path("docs/toy_results.md"), help="Markdown page whose tables are rewritten"
    )
    parser.add_argument("--prefix", default="", help="of the blocks' names: a model family other than the page's own")
    options = parse_arguments(parser)
    write_page(evaluated_runs(read_runs(options.runs)), options.page, options.prefix)


if __name__ == "__main__":
    main()
