"""Which frames of a video file are kept at a number of frames a second."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def frames_at_rate(times: Sequence[float], fps: float, preferred: Collection[int] | None = None) -> list[int]:
    """The position of one frame for each time k/fps that lies within the video.

    Of the frames that are nearer to that time than to another such time it is the nearest preferred one, else the
    nearest one.

    Args:
        times: seconds of each frame from the first one on.
        fps: frames per second to keep.
        preferred: positions; None: all.
    """
    best: dict[int, tuple[bool, float, int]] = {}
    for position, time in enumerate(times):
        slot = math.floor(time * fps + 0.5)
        rank = (preferred is not None and position not in preferred, abs(time - slot / fps), position)
        best[slot] = min(best.get(slot, rank), rank)
    end = times[-1] + times[-1] / max(len(times) - 1, 1) / 2
    return [best[slot][2] for slot in sorted(best) if slot / fps <= end]
