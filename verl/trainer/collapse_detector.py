"""A policy that has stopped learning: steps in a row in which no answer can be read, or no group has a signal."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from verl.metric_types import Metrics

log = logging.getLogger(__name__)

# name -> the metric that is 1 where the whole step is so, and what that means
COLLAPSE_KINDS = {
    "parse_failure": ("parse_failure/any", "none of the answers could be parsed"),
    "equal_reward": (
        "reward/frac_zero_std",
        "all answers to a prompt have the same score, for every prompt, so nothing is learnt",
    ),
}


class CollapseDetector:
    """Counts such steps in a row, and warns once for each kind after `limit` of them.

    Args:
        limit: algorithm.collapse_patience.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.streaks = dict.fromkeys(COLLAPSE_KINDS, 0)

    def update(self, metrics: Mapping[str, float]) -> Metrics:
        """Takes a step's metrics; returns `collapse/<kind>_streak`, the steps in a row so far."""
        for kind, (name, meaning) in COLLAPSE_KINDS.items():
            self.streaks[kind] = self.streaks[kind] + 1 if metrics.get(name, 0.0) >= 1.0 else 0
            if self.streaks[kind] == self.limit:
                numbers = f"reward {metrics.get('reward/mean', float('nan')):.3f}"
                numbers += f", {metrics.get('response/mean', float('nan')):.0f} tokens"
                numbers += f", {metrics.get('response/truncated', float('nan')):.0%} cut at the length limit"
                log.warning("in each of the last %d steps %s (%s=1; %s)", self.limit, meaning, name, numbers)
        return {f"collapse/{kind}_streak": float(count) for kind, count in self.streaks.items()}
