"""Which frames of a video are kept. A frame's index in the imported video is its timestamp in seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from veason.importing.source_clips import SourceClip


class KeptFrames(NamedTuple):
    """Positions in the source: of the frames that are kept, and of those that would be, had they an annotation."""

    kept: list[int]
    unannotated: list[int]


def choose_frames(clip: SourceClip, fps: float | None, annotated: Collection[int] | None) -> KeptFrames:
    """The frames of a video to import.

    Pictures are taken as they are. Of a file, `frames_at_rate` takes one for each time k/fps, annotated ones first.

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
        chosen = frames_at_rate(times, fps, annotated)
    if annotated is None:
        return KeptFrames(chosen, [])
    return KeptFrames(
        [position for position in chosen if position in annotated],
        [position for position in chosen if position not in annotated],
    )


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
