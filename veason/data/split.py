"""Which videos are held out for validation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def held_out_videos(videos: Iterable[str], val_ratio: float, seed: int) -> set[str]:
    """A share of the videos, drawn by `seed`: of a ratio above 0 at least one, and never all."""
    names = sorted(set(videos))
    count = min(max(1, round(len(names) * val_ratio)), len(names) - 1) if val_ratio > 0 and names else 0
    return {names[index] for index in np.random.default_rng(seed).permutation(len(names))[:count]}
