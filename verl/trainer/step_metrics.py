"""What a run reports of its groups (pure functions of GroupResults), and the timer of its phases. `section/name`
throughout.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from verl.algorithms.dapo import has_score_variance
from verl.metric_types import Metrics
from verl.protocol import GroupResult


class PhaseTimer:
    """Seconds per named phase; a phase that runs several times in a step adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Times the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start

    def seconds_so_far(self) -> Metrics:
        """`timing_s/<phase>` of all phases."""
        return {f"timing_s/{phase}": value for phase, value in self.seconds.items()}

    def read(self) -> Metrics:
        """`seconds_so_far`, and starts again."""
        seconds = self.seconds_so_far()
        self.seconds.clear()
        return seconds


def group_metrics(groups: Sequence[GroupResult], prefix: str = "") -> Metrics:
    """Scores, their parts, failures and lengths over all responses of some groups.

    With `prefix` in front: reward/mean, std, min, max (over responses), group_std (mean of the groups' own),
    frac_zero_std (share of groups without a signal), frac_nan (share of groups with a NaN score); rewards/<name>/mean,
    std, frac_zero (share of responses); parse_failure/<cause> and parse_failure/any (shares); response/mean, max
    (tokens), truncated (share); prompt/mean, max (tokens).
    """
    if not groups:
        return {}
    scored = [group for group in groups if has_scores(group)]
    failures = [failure for group in groups for failure in group.parse_failures]
    lengths = np.array([tokens for group in groups for tokens in group.response_tokens])
    prompts = np.array([group.prompt_tokens for group in groups])
    causes = Counter(failure for failure in failures if failure is not None)
    values = {
        "reward/frac_nan": 1 - len(scored) / len(groups),
        "parse_failure/any": sum(causes.values()) / len(failures),
        **{f"parse_failure/{cause}": count / len(failures) for cause, count in sorted(causes.items())},
        "response/mean": lengths.mean(),
        "response/max": lengths.max(),
        "response/truncated": np.mean([cut for group in groups for cut in group.truncated]),
        "prompt/mean": prompts.mean(),
        "prompt/max": prompts.max(),
    }
    if scored:
        values |= _score_metrics(scored)
    return {f"{prefix}{name}": float(value) for name, value in values.items()}


def _score_metrics(groups: Sequence[GroupResult]) -> Metrics:
    totals = np.array([total for group in groups for total in group.scores])
    parts: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        for response in group.parts:
            for name, value in response.items():
                parts[name].append(value)
    values = {
        "reward/mean": totals.mean(),
        "reward/std": totals.std(),
        "reward/min": totals.min(),
        "reward/max": totals.max(),
        "reward/group_std": np.mean([np.std(group.scores) for group in groups]),
        "reward/frac_zero_std": np.mean([not has_score_variance(group.scores) for group in groups]),
    }
    for name, numbers in parts.items():
        column = np.array(numbers)
        values[f"rewards/{name}/mean"] = column.mean()
        values[f"rewards/{name}/std"] = column.std()
        values[f"rewards/{name}/frac_zero"] = np.mean(column == 0)
    return values


def has_scores(group: GroupResult) -> bool:
    """Whether every response of the group has a score; a NaN anywhere leaves the whole group out."""
    return all(math.isfinite(total) for total in group.scores)
