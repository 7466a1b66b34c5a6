"""How much of a video the masks of a result cover, and a warning where that is nothing or nearly nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from veason import masks as rle_masks
from veason.masks import Rle

MIN_FRAMES_IN_VIEW = 0.1  # share of the frames: masks on fewer are nearly empty
MIN_AREA_FRACTION = 0.001  # of the picture: masks that are smaller on every frame are nearly empty
ADVICE = "Look at the overlay, try other words, or draw a box yourself on the page of `veason app`."


@dataclass(frozen=True)
class MaskArea:
    """The share of the picture, 0 to 1, that the union of the objects covers in each frame."""

    fractions: tuple[float, ...]

    @classmethod
    def from_tracks(cls, tracks: Sequence[Sequence[Rle]], total: int, size: tuple[int, int]) -> MaskArea:
        """Of the objects of a result, with a mask each in every one of `total` frames of height and width `size`."""
        pixels = size[0] * size[1]
        unions = (rle_masks.union(track[index] for track in tracks) for index in range(total))
        return cls(tuple(rle_masks.area(union) / pixels for union in unions))

    @property
    def frames_in_view(self) -> int:
        """Number of frames with a pixel of an object."""
        return sum(share > 0 for share in self.fractions)

    def __str__(self) -> str:
        if not self.frames_in_view:
            return f"in view on none of {len(self.fractions)} frames"
        largest = f"at most {format_percent(max(self.fractions))} of the picture"
        return f"in view on {self.frames_in_view} of {len(self.fractions)} frames, {largest}"

    @property
    def warning(self) -> str | None:
        """A warning in plain words where the masks are empty or nearly so; None otherwise."""
        if not self.frames_in_view:
            return f"The masks are empty on every frame. {ADVICE}"
        if self.frames_in_view < MIN_FRAMES_IN_VIEW * len(self.fractions) or max(self.fractions) < MIN_AREA_FRACTION:
            return f"The masks are nearly empty: {self}. {ADVICE}"
        return None


def format_percent(share: float) -> str:
    """A share as text, such as `0.06 %` or `12 %`."""
    if 0 < share < 1e-4:
        return "less than 0.01 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
