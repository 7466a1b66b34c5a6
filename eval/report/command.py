"""Reports: one self-contained HTML page about a training run or an evaluation.

    veason report checkpoints/veason_r1/run                    # writes report.html into the run's folder
    veason report RUN --against RUN2                           # with the differences of two runs
    veason report checkpoints/run --evaluation outputs/revos   # a training run with its evaluation
    veason report outputs/reasonvos data=/elsewhere/ReasonVOS max_pictures=50

A page loads nothing and runs only its own script, whose hash is in its content security policy. Texts of a policy or an
annotation are escaped by the template engine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from eval.evaluation_folder import PREDICTIONS
from eval.evaluation_options import parse_overrides, print_help_if_asked
from veason.errors import DataError
from verl.config import ConfigError


@dataclass
class ReportConfig:
    """Options of a report."""

    run: str = MISSING  # folder of a training run or of an evaluation; the first argument
    against: str | None = None  # another run of the same kind, to be compared with
    evaluation: str | None = None  # evaluations of a training run, comma-separated; null: those below its folder
    data: str | None = None  # an evaluation's benchmark folder; null: the run's own data_path
    # an evaluation's worst and best samples first; a page of 200 is about 20 MB
    max_pictures: int = field(default=200, metadata={"alias": "pictures"})
    output: str | None = None  # null: report.html in the run's folder


def main(arguments: Sequence[str]) -> int:
    """`veason report`, also `python -m eval.report`; returns the exit status."""
    if print_help_if_asked(ReportConfig, __doc__, arguments):
        return 0
    try:
        target = write_report(parse_overrides(ReportConfig, arguments, ("run",)))
    except (ConfigError, DataError) as error:
        print(f"veason report: {error}", file=sys.stderr)
        return 2
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def write_report(config: ReportConfig) -> Path:
    """Writes the page and returns its path. Raises DataError: no run, two kinds of runs, or no data set."""
    from eval.report.evaluation_page import evaluation_page
    from eval.report.training_page import training_page

    run = Path(config.run)
    target = Path(config.output) if config.output else run / "report.html"
    kind, against = run_kind(run), Path(config.against) if config.against else None
    if against is not None and (other := run_kind(against)) != kind:
        raise DataError(f"{run} is {kind} and {against} is {other}: compare runs of one kind")
    if kind == "an evaluation":
        page = evaluation_page(run, config.data, config.max_pictures, against)
    else:
        given = [Path(name) for name in config.evaluation.split(",")] if config.evaluation else None
        page = training_page(run, config.max_pictures, against, given, target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(page.encode("utf-8", errors="replace"))  # a policy may write lone surrogates
    return target


def run_kind(run: Path) -> str:
    """ "a training run" or "an evaluation", by the files of its folder. Raises DataError where it is neither."""
    if (run / PREDICTIONS).is_file():
        return "an evaluation"
    if (run / "metrics.jsonl").is_file():
        return "a training run"
    raise DataError(f"no run in {run}: neither metrics.jsonl (training) nor {PREDICTIONS} (evaluation) is there")
