"""Finds what a metric is: its unit, its meaning and what a healthy value is, from the tables of verl/metrics.md.

    python -m verl.metric_info
    python -m verl.metric_info --output docs/metrics.md

Without --output the page is printed.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PAGE = Path(__file__).with_name("metrics.md")
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
VALIDATION = "val/"  # prefix of the same metric of a validation


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is.

    Attributes:
        name: as in metrics.jsonl; `<word>` stands for names that depend on the run.
        unit: "" for a number without one ("-" in the table).
        meaning: one sentence.
        healthy: what to expect, and what another value says.
    """

    name: str
    unit: str
    meaning: str
    healthy: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"<\w+>", self.name)
        return re.compile("[^/]+".join(map(re.escape, parts)))


METRICS = tuple(
    MetricInfo(name, "" if unit == "-" else unit, meaning, healthy)
    for name, unit, meaning, healthy in ROW.findall(PAGE.read_text(encoding="utf-8"))
)


def find_metric(name: str) -> MetricInfo | None:
    """The entry of a metric, exact names first; None for one that is not in the tables."""
    name = name.removeprefix(VALIDATION)
    exact = (info for info in METRICS if info.name == name)
    return next(exact, next((info for info in METRICS if info.pattern.fullmatch(name)), None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="the page; default: the screen")
    output, page = parser.parse_args().output, PAGE.read_text(encoding="utf-8")
    if output is None:
        sys.stdout.write(page)
    else:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
