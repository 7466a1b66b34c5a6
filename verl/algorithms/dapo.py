"""What DAPO does to a batch before advantages are taken (Yu et al., arXiv 2503.14476)."""

from __future__ import annotations

import math
from collections.abc import Sequence

TOLERANCE = 1e-6  # of equal scores


def has_score_variance(scores: Sequence[float]) -> bool:
    """Dynamic sampling: a group teaches something only if its scores differ (section 3.2, equation 11).

    The paper's scores are right or wrong; for graded ones the same holds of their spread. A group with a NaN score
    has none.
    """
    if any(math.isnan(score) for score in scores):
        return False
    return max(scores) - min(scores) > TOLERANCE


def overlong_penalty(length: int, max_length: int, buffer: int, factor: float = 1.0) -> float:
    """Overlong shaping, added to the score: 0 up to max_length - buffer tokens, then falling in a line to -factor at
    max_length and beyond (section 3.4, equation 13).

    Raises:
        ValueError: the buffer is not within (0, max_length].
    """
    if not 0 < buffer <= max_length:
        raise ValueError(f"the overlong buffer must be within 1 and max_response_length = {max_length}, got {buffer}")
    excess = length - (max_length - buffer)
    return -factor * min(max(excess / buffer, 0.0), 1.0)
