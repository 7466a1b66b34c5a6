"""Looks at this machine and at data folders: what is there, what is wrong, and what to type.

    veason doctor
    veason doctor --data ReVOS --data data/dogs --model checkpoints/grpo/huggingface

One line each; a line that begins with `wrong` ends with what to type. The exit status is 0 when nothing is wrong, else
1. Nothing is loaded on a GPU, nothing is downloaded, and no file is written but the index of a large annotation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from veason.audit.command import open_splits
from veason.checkpoints import check_complete, resolve_model
from veason.command_line import HelpFormatter, parse_arguments
from veason.data import BENCHMARKS, VideoBenchmark, detect_benchmark
from veason.data.selection import select_samples
from veason.doctor.checks import CHECKS, Diagnosis
from veason.doctor.machine import read_machine
from veason.errors import DataError, describe, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, or 1 when something is wrong."""
    options = read_options(arguments)
    machine = read_machine()
    wrong = 0
    for finding in (
        *(finding for check in CHECKS for finding in check(machine)),
        *(finding for folder in options.data for finding in check_data(folder, options.benchmark)),
        *(check_model(name) for name in options.model),
    ):
        wrong += finding.fix is not None
        print(format_diagnosis(finding), flush=True)
    print("nothing is wrong" if not wrong else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")
    return 1 if wrong else 0


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="veason doctor", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data", action="append", default=[], type=Path, metavar="DIR", help="a data set's folder")
    parser.add_argument(
        "--benchmark",
        help=f"one of {', '.join(BENCHMARKS)}, or package.module:Class; detected from the files by default",
    )
    parser.add_argument(
        "--model", action="append", default=[], help="a checkpoint's folder, or its name on the hub, already downloaded"
    )
    return parse_arguments(parser, arguments)


def format_diagnosis(finding: Diagnosis) -> str:
    """A finding in one line."""
    text = f"{'ok   ' if finding.fix is None else 'wrong'}  {finding.subject}: {finding.text}"
    return printable(text if finding.fix is None else f"{text} -> {finding.fix}")


def check_data(folder: Path, name: str | None = None) -> Iterator[Diagnosis]:
    """Each split of a data set, opened by its reader; every frame and mask file has to be there."""
    subject = f"data {folder}"
    try:
        splits = open_splits(name or detect_benchmark(folder), folder)
    except (DataError, OSError) as error:
        yield Diagnosis(subject, describe(error), "give its own folder; docs/data.md lists the layouts")
        return
    for benchmark in splits:
        yield check_split(subject, benchmark)


def check_split(subject: str, benchmark: VideoBenchmark) -> Diagnosis:
    """What is missing in a split."""
    label = f"{benchmark.name} {benchmark.split}"
    audit = f"veason audit {benchmark.root}"
    try:
        selection = select_samples(benchmark, on_missing="skip")
    except (DataError, OSError) as error:
        return Diagnosis(subject, f"{label}: {describe(error)}", audit)
    videos = len({sample.video for sample in benchmark.samples})
    text = f"{label}: {videos} videos, {len(selection.indices)} usable expressions"
    if not selection.left_out:
        return Diagnosis(subject, text)
    first, reason = next(iter(selection.left_out.items()))
    return Diagnosis(subject, f"{text}; {len(selection.left_out)} are not, the first {first}: {reason}", audit)


def check_model(name: str) -> Diagnosis:
    """Whether a checkpoint is here and whole."""
    subject = f"model {name}"
    try:
        folder = resolve_model(name, download=False)
        check_complete(folder)
    except (DataError, OSError) as error:
        return Diagnosis(
            subject, describe(error), "copy or download it again: hf download OWNER/NAME --local-dir FOLDER"
        )
    return Diagnosis(subject, folder)


if __name__ == "__main__":
    raise SystemExit(main())
