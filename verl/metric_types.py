"""Metrics that know how they are combined: over the ranks of a call, and over the calls of a training step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean


class Mean(float):
    """A number of the whole batch, which every rank holds already; the mean over a step's calls."""

    @staticmethod
    def over_ranks(values: Sequence[float]) -> float:
        return values[0]

    @staticmethod
    def over_step(values: Sequence[float]) -> float:
        return fmean(values)


class Seconds(Mean):
    """A time: that of the slowest rank, summed over a step's calls."""

    @staticmethod
    def over_ranks(values: Sequence[float]) -> float:
        return max(values)

    @staticmethod
    def over_step(values: Sequence[float]) -> float:
        return sum(values)


class Count(Mean):
    """A number of events, which every rank counts alike; summed over a step's calls."""

    @staticmethod
    def over_step(values: Sequence[float]) -> float:
        return sum(values)


class Peak(Mean):
    """A high-water mark: the largest."""

    @staticmethod
    def over_ranks(values: Sequence[float]) -> float:
        return max(values)

    @staticmethod
    def over_step(values: Sequence[float]) -> float:
        return max(values)


Metrics = dict[str, float]  # `section/name` -> value; a plain float counts as a Mean


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


def _kind(value: float) -> type[Mean]:
    return type(value) if isinstance(value, Mean) else Mean
