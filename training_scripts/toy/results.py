"""From the folder of `training_scripts.toy.experiments` to one JSON, and from that to the tables and pictures of
docs/toy_results.md.

    python -m training_scripts.toy.results outputs/toy/experiments/results.json --page docs/toy_results.md

Only what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` of the page is replaced, and the pictures beside
it; the words around them are written by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training_scripts.toy.collect import SCORES, Run

LAST = 10  # steps over which a curve's end is averaged
SMOOTH = 5  # steps of the running mean in pictures


def by_name(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each experiment, seeds in order; those without an evaluation are left out."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run["scores"] is not None:
            found.setdefault(run["name"], []).append(run)
    return found


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds, `57.1 ± 0.8`; the number alone where there is one seed."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{fmean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


def scores_table(results: Mapping[str, Any]) -> str:
    """Rows in the order of the experiments' table: seeds, the gain over the start, and every column of SCORES, in
    percent.
    """
    groups, titles = by_name(results["runs"]), results["titles"]
    start = groups["sft"][0]["scores"]["Overall J&F"]["value"] if "sft" in groups else None
    rows = [["run", "seeds", *SCORES.values(), "gain in J&F"]]
    for name in titles:
        if name in groups:
            columns = [[run["scores"][key]["value"] for run in groups[name]] for key in SCORES]
            gain = "" if start is None or name == "sft" else spread([value - start for value in columns[0]])
            rows.append([titles[name], str(len(groups[name])), *map(spread, columns), gain])
    return markdown(rows)


ANSWERS = {  # columns of the table of answers, and where their figures are: kind of expression, name
    "compares, J&F": ("compares", "JF"),
    "given up": ("compares", "without_box"),
    "one shape, J&F": ("single", "JF"),
    "a box too many": ("single", "box_too_many"),
    "several shapes, J&F": ("several", "JF"),
    "no target: marked": ("absent", "box_too_many"),
}


def answers_table(results: Mapping[str, Any]) -> str:
    """Per experiment the columns of ANSWERS, in percent, mean and standard deviation over seeds."""
    groups, titles = by_name(results["runs"]), results["titles"]
    rows = [["run", *ANSWERS]]
    for name in titles:
        if name in groups:
            answers = [run["answers"] for run in groups[name]]
            rows.append(
                [
                    titles[name],
                    *(spread([100 * of[kind][key] for of in answers if kind in of]) for kind, key in ANSWERS.values()),
                ]
            )
    return markdown(rows)


def curves_table(results: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Per experiment the mean of each curve over its last steps and over seeds."""
    groups, titles = by_name(results["runs"]), results["titles"]
    rows = [["run", *columns.values()]]
    for name in titles:
        runs = [run for run in groups.get(name, []) if "reward/mean" in run["curves"]]
        if runs:
            ends = [[_end(run, key) for run in runs if key in run["curves"]] for key in columns]
            rows.append([titles[name], *(f"{fmean(values):.3g}" if values else "-" for values in ends)])
    return markdown(rows)


def _end(run: Run, key: str) -> float:
    return fmean(value for _, value in run["curves"][key][-LAST:])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def commands(results: Mapping[str, Any]) -> str:
    """The machines, and the training command of every experiment's first run, without the words that name places."""
    first = {run["name"]: run["command"] for run in reversed(results["runs"]) if run["command"]}
    lines = []
    for name in results["titles"]:
        if name in first:
            words = first[name].split()[1:]  # what follows the interpreter
            lines.append(
                " ".join(["python", *(word for word in words if "/" not in word or word.startswith("config="))])
            )
    places = sorted(
        {(stage, ended["machine"]) for run in results["runs"] for stage, ended in run["stages"].items()}, reverse=True
    )
    told = "\n".join(f"- {stage}: {machine}" for stage, machine in places)
    return f"{told}\n\n```\n" + "\n".join(lines) + "\n```"


def draw(results: Mapping[str, Any], names: Sequence[str], keys: Mapping[str, str], path: Path) -> None:
    """One panel a key over the steps; of each named experiment the mean over seeds, with the seeds' range as a band."""
    groups, titles = by_name(results["runs"]), results["titles"]
    columns = min(3, len(keys))
    figure = Figure(figsize=(4.2 * columns, 3.1 * -(-len(keys) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(keys) // columns), columns, squeeze=False).flat
    for (key, title), panel in zip(keys.items(), panels):  # in this order: the panel after the last key is not taken
        for number, name in enumerate(names):
            seeds = [run["curves"][key] for run in groups.get(name, []) if key in run["curves"]]
            if seeds:
                length = min(map(len, seeds))
                values = np.array([_smooth([value for _, value in seed[:length]]) for seed in seeds])
                steps = [step for step, _ in seeds[0][:length]]
                colour = f"C{number}"  # the same in every panel, also where an experiment has no curve
                panel.plot(steps, values.mean(0), label=titles[name], linewidth=1.5, color=colour)
                panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        panel.set_title(title, fontsize=10)
        panel.grid(alpha=0.3)
        panel.set_xlabel("step")
    for panel in list(panels):  # those without a key
        panel.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _smooth(values: Sequence[float]) -> np.ndarray:
    """The mean of each value and of up to SMOOTH - 1 before it."""
    return np.array([fmean(values[max(0, i + 1 - SMOOTH) : i + 1]) for i in range(len(values))])


PARTS = {"reward/mean": "reward (0 to 5)"} | {
    f"part/{name}_mean": f"{name} part" for name in ("format", "keyframe", "spatial", "consistency")
}
HEALTH = {
    "actor/entropy": "entropy",
    "actor/kl": "KL to the SFT policy",
    "reward/all_equal": "groups with equal scores",
    "response/mean": "tokens an answer",
    "response/truncated": "answers cut",
    "rollout/log_prob_gap": "log-probability gap, vLLM to actor",
}
ABLATIONS = ("grpo", "no_keyframe", "no_spatial", "no_sam2", "no_kl")
VARIANTS = ("grpo", "strict", "lora", "dr_grpo", "dapo")


def write_page(results: Mapping[str, Any], page: Path) -> None:
    """Fills the page's marked blocks and draws its pictures into the folder of its name."""
    folder = page.with_suffix("")
    pictures = {
        "GRPO": (("grpo",), PARTS | HEALTH),
        "ablations": (ABLATIONS, PARTS | {"actor/entropy": "entropy"}),
        "variants": (VARIANTS, PARTS | {"actor/entropy": "entropy"}),
    }
    for title, (names, keys) in pictures.items():
        draw(results, names, keys, folder / f"{title.lower()}.png")
    blocks = {
        "scores": scores_table(results),
        "answers": answers_table(results),
        "pictures": "\n\n".join(f"![{title}]({folder.name}/{title.lower()}.png)" for title in pictures),
        "curves": curves_table(results, PARTS | HEALTH),
        "commands": commands(results),
    }
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"toy_results: {page} has {text.count(begin)} blocks '{name}', not one")
        text = text[: text.index(begin) + len(begin)] + block + "\n" + text[text.index(end) :]
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, default=Path("docs/toy_results.md"))
    options = parser.parse_args()
    write_page(json.loads(options.results.read_text(encoding="utf-8")), options.page)


if __name__ == "__main__":
    main()
