"""Which samples of a benchmark are evaluated: without the excluded ones, and without those that cannot be used."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from veason.data.base import VideoBenchmark
from veason.errors import DataError, printable
from veason.files import read_text_file, write_text

ON_MISSING = ("fail", "skip")
EXCLUDED = "excluded"  # the reason of a sample that the user left out
LEFT_OUT = "left_out.txt"  # in a run's folder


@dataclass(frozen=True)
class SampleSelection:
    """A part of a benchmark.

    Attributes:
        indices: of its samples in `VideoBenchmark.samples`, in order.
        left_out: sample id, or a video that cannot be read at all -> the reason.
    """

    indices: list[int]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str | None:
        """How many were left out, and why, in one line; None when none were."""
        if not self.left_out:
            return None
        excluded = sum(reason == EXCLUDED for reason in self.left_out.values())
        missing = len(self.left_out) - excluded
        parts = [f"{count} {why}" for count, why in ((missing, "missing or unusable"), (excluded, EXCLUDED)) if count]
        return f"left out: {' and '.join(parts)}; {len(self.indices)} are left"


def select_samples(
    benchmark: VideoBenchmark,
    exclude: Collection[str] = (),
    limit: int | None = None,
    on_missing: str = "fail",
    frames: bool = True,
    read_masks: bool = False,
) -> SampleSelection:
    """The samples to evaluate.

    Args:
        exclude: sample ids and videos to leave out.
        limit: at most so many; samples beyond are not looked at.
        on_missing: "fail" refuses samples that are missing or cannot be used, "skip" leaves them out.
        frames: whether frames are needed; scoring reads masks alone.
        read_masks: also read the masks of a data set of your own, so that a wrong one does not end a run at its end.

    Raises:
        DataError: with "fail", in one line that names the first and says how many there are; or nothing is left.
    """
    if on_missing not in ON_MISSING:
        raise DataError(f"on_missing is {on_missing!r}; it can be {' or '.join(ON_MISSING)}")
    indices, left_out, missing = list[int](), dict[str, str](), dict[str, str]()
    for entry in benchmark.rejected:
        if not {entry.name, entry.video}.isdisjoint(exclude):
            left_out[entry.name] = EXCLUDED
        elif limit is None:
            missing[entry.name] = entry.reason
    looked_at, masks = 0, read_masks and benchmark.has_ground_truth
    for index, sample in enumerate(tqdm(benchmark.samples, desc="checking files", delay=3, leave=False)):
        if len(indices) + (len(missing) if on_missing == "fail" else 0) == limit:
            break
        looked_at += 1
        if sample.sample_id in exclude or sample.video in exclude:
            left_out[sample.sample_id] = EXCLUDED
            continue
        problems = benchmark.problems(sample) if frames else benchmark.ground_truth_problems(sample)
        problems = problems + benchmark.scoring_problems(sample)
        if problems or (masks and (problems := benchmark.mask_problems(sample))):
            missing[sample.sample_id] = problems[0]
        else:
            indices.append(index)
    if missing and on_missing == "fail":
        raise DataError(_refusal(benchmark, missing, looked_at + len(benchmark.rejected)))
    if not indices:
        reason = next(iter((missing | left_out).values()), "there is none")
        raise DataError(f"{benchmark.name} {benchmark.split}: no sample is left ({reason})")
    return SampleSelection(indices, left_out | missing)


def write_left_out(folder: Path, selection: SampleSelection) -> None:
    """Write the samples that were left out, as `exclude` reads them; no file when none were."""
    lines = (format_exclusion(name, reason) for name, reason in selection.left_out.items())
    if selection.left_out:
        write_text(folder / LEFT_OUT, "".join(lines))
    else:
        (folder / LEFT_OUT).unlink(missing_ok=True)


def read_left_out(folder: Path) -> dict[str, str]:
    """What `write_left_out` wrote; {} where there is no file."""
    path = folder / LEFT_OUT
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {_listed_name(line): line.rpartition("  # ")[2] for line in lines}


def read_exclusions(exclude: str | os.PathLike[str] | Iterable[str] | None) -> set[str]:
    """Sample ids and videos to leave out: from a list, or from a text file with one a line (`format_exclusion`).

    Raises:
        DataError: the file is missing or cannot be read.
    """
    if exclude is None or exclude == "":
        return set()
    if not isinstance(exclude, (str, os.PathLike)):
        return {str(name) for name in exclude}
    return set(filter(None, map(_listed_name, read_text_file(exclude, "exclusion list").split("\n"))))


def format_exclusion(name: str, reason: str) -> str:
    """A line of a text file of samples to leave out: the name, quoted where it would not be read back, and why."""
    plain = name == name.strip() and "#" not in name and not name.startswith('"')
    return f"{name if plain else json.dumps(name)}  # {printable(reason)}\n"


def _listed_name(line: str) -> str:
    """The name in a line of such a file; # starts a comment."""
    line = line.strip()
    if line.startswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.JSONDecoder().raw_decode(line)[0])
    return line.partition("#")[0].strip()


def _refusal(benchmark: VideoBenchmark, missing: dict[str, str], total: int) -> str:
    name, reason = next(iter(missing.items()))
    more = f" ({len(missing) - 1} more of {total})" if len(missing) > 1 else f" (1 of {total})"
    hint = f"on_missing=skip leaves them out, `veason audit {benchmark.root}` lists them"
    return f"{benchmark.name} {name}: {reason}{more}; {hint}{benchmark.missing_hint}"
