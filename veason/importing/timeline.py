"""Which frames of a video are kept. A frame's position in the imported video is its time in seconds."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from veason.importing.clips import SourceClip
from veason.importing.rate import frames_at_rate


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
