"""What a benchmark reports: the metrics of one expression, and the columns of its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SampleFilter = Callable[["SampleScore"], bool]
PaperRows = tuple[tuple[str, dict[str, float]], ...]  # (method, column title -> value in percent)


@dataclass
class SampleScore:
    """The metrics of one expression: means over its frames, fractions. A missing frame counts as 0 in all of them.

    Attributes:
        J, F: region similarity and contour accuracy (DAVIS).
        A, R: VISA's accuracy and robustness, on the masks as they are stored; R is None where the benchmark has no
            foreground masks.
        A_binary, R_binary: the same with every value but 0 read as 1.
        annotator: Ref-DAVIS17: which of the four descriptions.
        track_ious: ViCaS: [predicted tracks][ground-truth tracks], over whole videos.
        missing: frames without a prediction.
        category: as in the sample.
        metrics: a benchmark's own metrics of the expression, by the name that its columns give.
    """

    sample_id: str
    video: str
    type_id: int | None
    num_objects: int
    J: float = 0.0
    F: float = 0.0
    A: float = 0.0
    R: float | None = None
    A_binary: float = 0.0
    R_binary: float | None = None
    annotator: int | None = None
    track_ious: list[list[float]] = field(default_factory=list)
    missing: int = 0
    category: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def JF(self) -> float:
        return (self.J + self.F) / 2

    def value(self, metric: str) -> float | None:
        """A metric by its name in `metrics`, or else the attribute of that name."""
        return self.metrics[metric] if metric in self.metrics else getattr(self, metric)


@dataclass(frozen=True)
class Column:
    """A column of a table: the mean over `groups` of the group's mean of `metric`, in percent.

    Attributes:
        metric: an attribute of SampleScore, or a key of its `metrics`.
        groups: which samples are in each group.
    """

    title: str
    metric: str
    groups: tuple[SampleFilter, ...]


def every_sample(score: SampleScore) -> bool:  # noqa: ARG001
    return True


def of_type(*types: int) -> SampleFilter:
    """The samples of some `type_id`s."""
    return lambda score: score.type_id in types


def of_category(category: str) -> SampleFilter:
    """The samples of one category."""
    return lambda score: score.category == category


def j_and_f(*groups: SampleFilter, prefix: str = "") -> tuple[Column, ...]:
    """The columns J, F and J&F, their titles after `prefix`; over all samples as one group by default."""
    groups = groups or (every_sample,)
    metrics = (("J", "J"), ("F", "F"), ("J&F", "JF"))
    return tuple(Column(f"{prefix}{title}", metric, groups) for title, metric in metrics)


def paper_table(titles: str, *rows: tuple[Any, ...]) -> PaperRows:
    """Rows of a paper's table.

    Args:
        titles: of the columns, separated by "|".
        rows: (method, value or None per column), in percent.
    """
    names = titles.split("|")
    return tuple(
        (method, {title: value for title, value in zip(names, values) if value is not None}) for method, *values in rows
    )
