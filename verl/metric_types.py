"""Metrics that know how they are combined: over the ranks of a call, and over the calls of a training step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar


def _first(values: Sequence[float]) -> float:
    return values[0]


class Metric(float):
    """A float that knows its reductions; the subclasses say which."""

    over_ranks: ClassVar[Any]  # from the values of all ranks to one
    over_step: ClassVar[Any]  # from the values of a step's calls to one


class ReplicatedMetric(Metric):
    """A value of the whole batch, all-reduced already, so the same on every rank; the mean over a step's calls."""

    over_ranks, over_step = staticmethod(_first), staticmethod(fmean)


class TimeMetric(Metric):
    """Seconds: those of the slowest rank, summed over a step's calls."""

    over_ranks, over_step = staticmethod(max), staticmethod(sum)


class CountMetric(Metric):
    """A number of events, which every rank counts alike; summed over a step's calls."""

    over_ranks, over_step = staticmethod(_first), staticmethod(sum)


class PeakMetric(Metric):
    """A high-water mark: the largest."""

    over_ranks = over_step = staticmethod(max)


Progress = Mapping[str, tuple[int, int]]  # phase -> (groups done, groups), while it is under way
Metrics = dict[str, float]  # `section/name` -> value; a plain float counts as a ReplicatedMetric


def reduce_over_ranks(ranks: Sequence[Mapping[str, float]]) -> Metrics:
    """One value per name of the first rank."""
    kinds = {name: _kind(value) for name, value in ranks[0].items()}
    return {name: kind(kind.over_ranks([each[name] for each in ranks])) for name, kind in kinds.items()}


def reduce_over_step(calls: Sequence[Mapping[str, float]]) -> Metrics:
    """One value per name over the calls (sampling rounds, optimizer updates) that report it."""
    columns: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        for name, value in call.items():
            columns[name].append(value)
    return {name: _kind(values[0])(_kind(values[0]).over_step(values)) for name, values in columns.items()}


def _kind(value: float) -> type[Metric]:
    return type(value) if isinstance(value, Metric) else ReplicatedMetric
