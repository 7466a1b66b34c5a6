"""What each benchmark reports, in the shape of the paper's tables, beside the paper's numbers and with a confidence
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.scores import SampleScore

RESAMPLES = 2000  # of the bootstrap, over videos: expressions of one video are not independent
THRESHOLDS = np.arange(0.5, 0.95 + 1e-4, 0.05)  # ViCaS's IoUs
MAX_TRACKS = 10  # ViCaS: of one referral

Of = Callable[[SampleScore], bool]


@dataclass(frozen=True)
class Column:
    """A number of a table: the mean over `groups` of the group's mean of `metric`. In percent, as the field prints it."""

    title: str
    metric: str  # attribute of SampleScore
    groups: tuple[Of, ...]


@dataclass(frozen=True)
class Value:
    """A number with its 95 % bootstrap interval; NaN where no sample falls into it."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def of_type(*types: int) -> Of:
    return lambda score: score.type_id in types


def everything(score: SampleScore) -> bool:  # noqa: ARG001
    return True


def _j_f(groups: tuple[Of, ...]) -> tuple[Column, ...]:
    return (Column("J", "J", groups), Column("F", "F", groups), Column("J&F", "JF", groups))


REFERRING, REASONING, ABSENT = (of_type(0),), (of_type(1),), (of_type(2),)
OVERALL = REFERRING + REASONING  # VISA: the mean of the two types' means
ANNOTATORS = tuple((lambda score, number=number: score.annotator == number) for number in range(4))

COLUMNS: dict[str, tuple[Column, ...]] = {
    "revos": (  # the paper's four first
        Column("Referring J&F", "JF", REFERRING),
        Column("Reasoning J&F", "JF", REASONING),
        Column("Overall J&F", "JF", OVERALL),
        Column("R", "R", OVERALL),
        Column("R binary", "R_binary", OVERALL),
        Column("Overall J", "J", OVERALL),
        Column("Overall F", "F", OVERALL),
        Column("Absent J&F", "JF", ABSENT),
        Column("Absent R binary", "R_binary", ABSENT),
    ),
    "refdavis17": _j_f(ANNOTATORS),
}
PAPER: dict[str, tuple[tuple[str, dict[str, float]], ...]] = {  # CVPR 2026, in percent
    "revos": tuple(
        (
            method,
            {"Referring J&F": referring, "Reasoning J&F": reasoning, "Overall J&F": overall} | ({"R": r} if r else {}),
        )
        for method, referring, reasoning, overall, r in (
            ("LISA-7B", 45.7, 36.1, 40.9, 9.3),
            ("VISA-13B", 57.4, 44.3, 50.9, 14.5),
            ("GLUS-7B", 58.3, 51.4, 54.9, 17.9),
            ("Omni-R1", 64.1, 53.7, 58.9, None),
            ("VRS-HQ-13B", 63.3, 56.8, 60.0, 18.9),
            ("Veason-R1-3B (paper)", 63.0, 56.8, 59.9, 28.5),
            ("Veason-R1-7B (paper)", 63.6, 59.0, 61.3, 27.0),
        )
    ),
    "reasonvos": tuple(
        (method, {"J": j, "F": f, "J&F": jf})
        for method, j, f, jf in (
            ("VideoLISA-3.8B", 45.1, 49.9, 47.5),
            ("GLUS-7B", 47.5, 52.4, 49.9),
            ("Veason-R1-3B (paper)", 51.8, 58.5, 55.2),
            ("Veason-R1-7B (paper)", 56.0, 63.8, 59.9),
        )
    ),
    "mevis": tuple(
        (method, {"J": j, "F": f, "J&F": jf})
        for method, j, f, jf in (
            ("VISA-13B", 41.8, 47.1, 44.5),
            ("GLUS-7B", 48.5, 54.2, 51.3),
            ("VRS-HQ-13B", 48.0, 53.7, 50.9),
            ("Veason-R1-3B (paper)", 48.2, 54.2, 51.2),
            ("Veason-R1-7B (paper)", 48.4, 56.0, 52.2),
        )
    ),
    "vicas val": (
        ("LMPM", {"J&F": 8.4}),
        ("VideoLISA", {"J&F": 10.7}),
        ("Video-LLaVA-Seg†", {"J&F": 20.5}),
        ("Veason-R1 (paper)", {"J&F": 24.5}),
    ),
    "vicas test": (
        ("LMPM", {"J&F": 6.3}),
        ("VideoLISA", {"J&F": 7.8}),
        ("Video-LLaVA-Seg†", {"J&F": 16.5}),
        ("Veason-R1 (paper)", {"J&F": 18.2}),
    ),
}

NOTES = {  # below a table
    "mevis": "The paper's rows are on the paper's split of MeViS, this run's on its own: compare them only where the splits are the same.",
    "vicas": "† fine-tuned on ViCaS.",
}


def summarize(benchmark: str, scores: Sequence[SampleScore], seed: int = 0) -> dict[str, Value]:
    """The benchmark's numbers, by column title, in percent."""
    columns = COLUMNS.get(benchmark, _j_f((everything,)))
    videos = sorted({score.video for score in scores})
    draws = np.random.default_rng(seed).multinomial(len(videos), np.full(len(videos), 1 / len(videos)), size=RESAMPLES)
    weights = np.vstack([np.ones(len(videos)), draws])  # the first row is the sample itself
    values = {column.title: _bootstrap(column, scores, videos, weights) for column in columns}
    if benchmark == "vicas":
        values.update({title: Value(value) for title, value in track_map(scores).items()})
    return values


def _bootstrap(column: Column, scores: Sequence[SampleScore], videos: Sequence[str], weights: np.ndarray) -> Value:
    place = {video: number for number, video in enumerate(videos)}
    means = []
    for group in column.groups:
        sums, counts = np.zeros(len(videos)), np.zeros(len(videos))
        for score in scores:
            value = getattr(score, column.metric)
            if group(score) and value is not None:
                sums[place[score.video]] += value
                counts[place[score.video]] += 1
        if counts.sum():
            with np.errstate(invalid="ignore"):  # a resample may hold no sample of a group
                means.append((weights @ sums) / (weights @ counts))
    if not means:
        return Value(float("nan"))
    mean = 100 * np.mean(means, axis=0)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return Value(float(mean[0]), float(low), float(high))


def track_map(scores: Sequence[SampleScore]) -> dict[str, float]:
    """ViCaS's own numbers: average precision of tracks over IoUs from 0.5 to 0.95, all tracks equally sure.

    As in Ali2500/ViCaS `vicas/evaluation/seg_eval.py`, its matching included: a track takes the last true one above the
    threshold.
    """
    matched: list[np.ndarray] = []  # bool [thresholds] per predicted track
    for score in scores:
        taken: list[set[int]] = [set() for _ in THRESHOLDS]
        for ious in score.track_ious[:MAX_TRACKS]:
            hits = np.zeros(len(THRESHOLDS), bool)
            for level, threshold in enumerate(THRESHOLDS):
                fit = [
                    j
                    for j, iou in enumerate(np.asarray(ious, np.float32))
                    if iou >= threshold and j not in taken[level]
                ]
                if fit:
                    taken[level].add(fit[-1])
                    hits[level] = True
            matched.append(hits)
    true_tracks = sum(score.num_objects for score in scores)
    if not matched or not true_tracks:
        precisions = np.zeros(len(THRESHOLDS)) if true_tracks else np.ones(len(THRESHOLDS))
    else:
        order = np.argsort(
            -np.ones(len(matched), np.float32)
        )  # equal scores, in the order that the reference puts them
        precisions = np.array([_average_precision(hits, true_tracks) for hits in np.array(matched)[order].T])
    named = {"mAP": precisions.mean()} | {
        f"AP@{round(100 * t)}": ap for t, ap in zip(THRESHOLDS, precisions) if round(100 * t) in (50, 75, 90)
    }
    return {title: 100 * float(value) for title, value in named.items()}


def _average_precision(hits: np.ndarray, true_tracks: int) -> float:
    """Area under the precision envelope, hits bool [tracks] in descending order of score."""
    found = np.cumsum(hits)
    precision = np.concatenate([[0.0], found / np.arange(1, len(hits) + 1), [0.0]])
    recall = np.concatenate([[0.0], found / true_tracks, [1.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


def markdown(benchmark: str, split: str, values: dict[str, Value], name: str) -> str:
    """The paper's table with our row below it, each number with its interval."""
    paper = PAPER.get(benchmark) or PAPER.get(f"{benchmark} {split}") or ()
    rows = [[method, *(f"{row[title]:.1f}" if title in row else "-" for title in values)] for method, row in paper]
    rows.append([name, *(_cell(value) for value in values.values())])
    lines = [["Method", *values], ["---"] * (1 + len(values)), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{NOTES[benchmark]}" if benchmark in NOTES else table


def _cell(value: Value) -> str:
    if np.isnan(value.value):
        return "-"
    return f"{value.value:.1f}" if np.isnan(value.low) else f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
