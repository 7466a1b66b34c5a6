"""Which frames of a video are kept. A frame's position in the imported video is its time in seconds."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from veason.importing.clips import SourceClip


class KeptFrames(NamedTuple):
    """Positions in the source: of the frames that are kept, and of those that would be, had they an annotation."""

    kept: list[int]
    unannotated: list[int]


def choose_frames(clip: SourceClip, fps: float | None, annotated: Collection[int] | None) -> KeptFrames:
    """The frames of a video to import.

    Pictures are taken as they are. Of a file, one frame is taken for each time k/fps that lies within the video: of
    the frames that are nearer to it than to another such time the nearest annotated one, else the nearest one.

    Args:
        fps: frames per second to keep of a file.
        annotated: positions whose annotation says where every object is, or that it is absent; None where any frame
            will do.
    """
    times = clip.times
    if times is None:
        chosen = list(range(clip.total))
    else:
        assert fps is not None
        known = set(range(clip.total)) if annotated is None else set(annotated)
        best: dict[int, tuple[bool, float, int]] = {}
        for position, time in enumerate(times):
            slot = math.floor(time * fps + 0.5)
            rank = (position not in known, abs(time - slot / fps), position)
            best[slot] = min(best.get(slot, rank), rank)
        end = times[-1] + times[-1] / max(len(times) - 1, 1) / 2
        chosen = [best[slot][2] for slot in sorted(best) if slot / fps <= end]
    if annotated is None:
        return KeptFrames(chosen, [])
    return KeptFrames(
        [position for position in chosen if position in annotated],
        [position for position in chosen if position not in annotated],
    )
