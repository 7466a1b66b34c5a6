"""Checks a data set on the disk, and writes what is wrong and which expressions to leave out.

    veason audit ReVOS                          # detects the benchmark; or --benchmark revos
    python -m verl.trainer.main ... data.exclude=audit/exclude.txt

The folder `audit` then holds report.md (counts by kind, examples, pictures), findings.jsonl (every finding),
exclude.txt (the expressions to leave out, each with its reason) and pictures/. The exit status is 0 when nothing has to
be left out, 1 when something has, 2 when the data cannot be opened or the report cannot be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from veason import masks
from veason.audit.checks import FINDING_KINDS, AuditFinding, check_annotation, check_video, excluded_samples
from veason.command_line import HelpFormatter, parse_arguments
from veason.data import BENCHMARKS, VideoBenchmark, VideoSample, detect_benchmark, find_benchmark
from veason.data.selection import format_exclusion
from veason.errors import DataError, MissingFileError, describe
from veason.files import write_text
from veason.frames import read_frame
from veason.visualization.drawing import frame_strip, overlay_masks, save_picture


def open_splits(name: str, root: Path) -> list[VideoBenchmark]:
    """Every split of a benchmark whose annotation is at hand."""
    opened, missing = [], []
    cls = find_benchmark(name)
    for split in cls.splits:
        try:
            opened.append(cls(root, split))
        except MissingFileError as error:  # the split's own: a video's is rejected
            missing.append(str(error))
    if not opened:
        raise DataError(missing[0])
    return opened


def audit(benchmark: VideoBenchmark, workers: int = 1) -> list[AuditFinding]:
    """All findings about one split, video by video, by `workers` processes."""
    videos: dict[str, list[VideoSample]] = defaultdict(list)
    for sample in benchmark.samples:
        videos[sample.video].append(sample)
    label = f"{benchmark.name} {benchmark.split}"
    benchmark.build_index()  # once here, not in every worker
    if workers < 2:
        groups = tqdm(videos.values(), desc=label, disable=None)
        return check_annotation(benchmark) + [finding for group in groups for finding in check_video(benchmark, group)]
    with ProcessPoolExecutor(workers, initializer=_init_worker, initargs=(benchmark,)) as pool:
        found = tqdm(pool.map(_check_in_worker, videos.values()), total=len(videos), desc=label, disable=None)
        return check_annotation(benchmark) + [finding for findings in found for finding in findings]


def write_report(
    output: Path, benchmarks: Sequence[VideoBenchmark], findings: Sequence[AuditFinding], pictures: int
) -> dict[str, list[str]]:
    """Write report.md, findings.jsonl, exclude.txt and the pictures; returns `excluded_samples(findings)`."""
    reasons = excluded_samples(findings)
    lines = (format_exclusion(sample_id, ", ".join(kinds)) for sample_id, kinds in reasons.items())
    write_text(output / "exclude.txt", "".join(lines))
    records = (json.dumps(asdict(finding), ensure_ascii=False) + "\n" for finding in findings)
    write_text(output / "findings.jsonl", "".join(records))
    by_split = {benchmark.split: benchmark for benchmark in benchmarks}
    drawn = dict(_draw(output / "pictures", by_split, findings, pictures))
    write_text(output / "report.md", "\n".join(_report(benchmarks, findings, reasons, drawn)) + "\n")
    return reasons


def _report(
    benchmarks: Sequence[VideoBenchmark],
    findings: Sequence[AuditFinding],
    reasons: dict[str, list[str]],
    drawn: dict[AuditFinding, Path],
) -> Iterator[str]:
    yield f"# Audit of {benchmarks[0].root}\n"
    for benchmark in benchmarks:
        videos = len({sample.video for sample in benchmark.samples})
        note = "" if benchmark.has_ground_truth else ", no public masks"
        yield f"- {benchmark.name} {benchmark.split}: {videos} videos, {len(benchmark.samples)} expressions{note}"
    yield f"- left out by exclude.txt: {len(reasons)} expressions\n"
    yield "| kind | what it means | findings | videos | expressions | left out |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for kind, (meaning, excluded) in FINDING_KINDS.items():
        of_kind = [finding for finding in findings if finding.kind == kind]
        videos = len({finding.video for finding in of_kind})
        affected = len({sample_id for finding in of_kind for sample_id in finding.sample_ids})
        yield f"| {kind} | {meaning} | {len(of_kind)} | {videos} | {affected} | {'yes' if excluded else 'no'} |"
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] == 1:
            yield f"\n## {finding.kind}\n"
        if counts[finding.kind] <= 20 or finding in drawn:
            yield f"- {finding.split}, {finding.video}: {finding.detail}"
        if finding in drawn:
            yield f"\n  ![{finding.kind}](pictures/{drawn[finding].name})\n"


def _draw(
    folder: Path, benchmarks: dict[str, VideoBenchmark], findings: Iterable[AuditFinding], most: int
) -> Iterator[tuple[AuditFinding, Path]]:
    """Overlay pictures of the first findings of each kind that can be drawn: the frame between its neighbours."""
    counts: Counter[str] = Counter()
    for finding in findings:
        if finding.object_id is None or not finding.frames or counts[finding.kind] >= most:
            continue
        benchmark = benchmarks[finding.split]
        sample = next(sample for sample in benchmark.samples if sample.sample_id == finding.sample_ids[0])
        centre = finding.frames[0]
        shown = [t for t in range(centre - 1, centre + 3) if 0 <= t < len(sample.frames)]
        try:
            cells = [_overlay(benchmark, sample, finding.object_id, t) for t in shown]
        except DataError:  # what cannot be read cannot be shown; the finding is in the report
            continue
        counts[finding.kind] += 1
        name = f"{finding.kind}-{counts[finding.kind]:02d}-{finding.video.replace('/', '_')}.jpg"
        picture = frame_strip(cells, [sample.frames[t] for t in shown])
        yield finding, save_picture(folder / name, picture)


def _overlay(benchmark: VideoBenchmark, sample: VideoSample, object_id: str, t: int) -> np.ndarray:
    """Frame t under the object's mask; a mask of another size lies at the upper left corner."""
    frame = read_frame(benchmark.frame_path(sample, t))
    track = benchmark.annotated_masks(sample, object_id)
    shown = np.zeros((frame.shape[0], frame.shape[1]), np.uint8)
    if t < len(track) and (rle := track[t]) is not None:
        mask = masks.decode(rle)[: frame.shape[0], : frame.shape[1]]
        shown[: mask.shape[0], : mask.shape[1]] = mask
    return overlay_masks(frame, shown)


_opened: dict[str, VideoBenchmark] = {}  # of a worker process


def _init_worker(benchmark: VideoBenchmark) -> None:
    _opened["benchmark"] = benchmark


def _check_in_worker(samples: list[VideoSample]) -> list[AuditFinding]:
    return check_video(_opened["benchmark"], samples)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="veason audit", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("data", type=Path, help="the data set's folder")
    parser.add_argument(
        "--benchmark",
        help=f"one of {', '.join(BENCHMARKS)}, or package.module:Class; detected from the files by default",
    )
    parser.add_argument("--output", type=Path, default=Path("audit"), help="folder of the report")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--pictures", type=int, default=8, help="overlay pictures of each kind, at most")
    options = parse_arguments(parser, arguments)
    try:
        benchmarks = open_splits(options.benchmark or detect_benchmark(options.data), options.data)
        findings = [finding for benchmark in benchmarks for finding in audit(benchmark, options.workers)]
        reasons = write_report(options.output, benchmarks, findings, options.pictures)
    except (DataError, OSError) as error:
        print(describe(error), file=sys.stderr)
        return 2
    for kind, count in Counter(finding.kind for finding in findings).most_common():
        print(f"{count:6d} {kind}: {FINDING_KINDS[kind][0]}")
    total = sum(len(benchmark.samples) for benchmark in benchmarks)
    print(
        f"{len(reasons)} of {total} expressions to leave out; see {options.output / 'report.md'} and "
        f"{options.output / 'exclude.txt'}"
    )
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
