"""Finds what a metric is in `verl.metric_table`, and writes docs/metrics.md from there.

    python -m verl.metric_info > docs/metrics.md
    python -m verl.metric_info | grep reward

The page goes to standard output.
"""

from __future__ import annotations

import argparse

from verl.metric_table import SECTIONS, MetricInfo

VALIDATION = "val/"  # prefix of the same metric of a validation


def find_metric(name: str) -> MetricInfo | None:
    """The entry of a metric, exact names first; None for one that is not in the table."""
    name = name.removeprefix(VALIDATION)
    entries = [info for _, infos in SECTIONS.values() for info in infos]
    exact = (info for info in entries if info.name == name)
    return next(exact, next((info for info in entries if info.pattern.fullmatch(name)), None))


def markdown() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "What `metrics.jsonl`, the loggers of `trainer.logger` and the report of a run show, one row per step.",
        "`val/` in front of a name is the same of a validation. `<word>` stands for names that depend on the run.",
        "Written from `verl/metric_table.py`: `python -m verl.metric_info > docs/metrics.md`.",
    ]
    for title, (note, infos) in SECTIONS.items():
        lines += ["", f"## {title}", ""]
        lines += [note, ""] if note else []
        lines += ["| metric | unit | meaning | healthy |", "| --- | --- | --- | --- |"]
        lines += [f"| `{info.name}` | {info.unit or '-'} | {info.meaning} | {info.healthy} |" for info in infos]
    lines += [
        "",
        "## Distributions",
        "",
        "`histograms.jsonl` has a row per step with 20 equal bins (`low`, `high`, `counts`) of `reward` (total",
        "scores), `response` (tokens) and `advantage` (of each response, the mean over its tokens). A histogram of",
        "rewards that moves right as a whole is healthy; two peaks that stay apart are easy and hard prompts.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser("python -m verl.metric_info", description=__doc__, formatter_class=formatter).parse_args()
    print(markdown(), end="")


if __name__ == "__main__":
    main()
