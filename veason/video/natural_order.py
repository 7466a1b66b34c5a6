"""The order of names that hold numbers."""

from __future__ import annotations

import re
from typing import Any

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[Any, ...], str]:
    """A sort key that compares runs of digits as numbers, frame2 before frame10, and ignores case."""
    parts = _DIGITS.split(name)  # texts at even positions, digits at odd ones
    return tuple(_number(part) if odd % 2 else part.casefold() for odd, part in enumerate(parts)), name


def _number(digits: str) -> tuple[int, str]:
    """Compares as the number does; int() would refuse thousands of digits."""
    digits = digits.lstrip("0")
    return len(digits), digits
