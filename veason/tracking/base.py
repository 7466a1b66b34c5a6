"""The interface of trackers: boxes on one frame in, masks on every frame out.

A tracker of your own is a subclass of `BaseTracker` with one method, `track`; everything else is derived from it:

    class StandStill(BaseTracker):
        def track(self, read_frame, total, keyframe, boxes):
            mask = np.zeros(read_frame(keyframe).shape[:2], bool)
            for x1, y1, x2, y2 in boxes.astype(int):
                mask[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = True
            yield from ((frame, mask) for frame in range(total))

It is chosen as `package.module:StandStill` wherever a tracker has a name (see `veason.tracking`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veason.resolve import check_arguments

MAX_COORDINATE = 1e30  # pixels; much farther out a box overflows SAM 2's encoding of its corners

ReadFrame = Callable[[int], np.ndarray]  # frame index -> uint8 [H, W, 3] RGB
TrackedFrame = tuple[int, np.ndarray]  # frame index, bool mask [H, W]


@dataclass(frozen=True)
class BoxPrompt:
    """Boxes on one frame, one object each; the mask of a prompt is the union of its objects.

    Attributes:
        keyframe: the frame's index.
        boxes: float [K, 4], x1 y1 x2 y2 in pixels of the frames. A box that is not finite, or beyond `MAX_COORDINATE`,
            gives an empty mask.
    """

    keyframe: int
    boxes: np.ndarray


Clip = tuple[Sequence[np.ndarray], Sequence[BoxPrompt]]  # frames, uint8 [H, W, 3] RGB each, and what is tracked in them


class Tracker(Protocol):
    """What the reward, the evaluation and the prediction use.

    Attributes:
        max_frames: longest clip that `track_group` and `track_groups_on_device` are to be given; the evaluation and the
            prediction stream longer videos through `track_video`.
    """

    max_frames: int

    def prepare(self, frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Compute what depends on a clip's frames alone; what is returned takes their place in the other methods."""

    def track_groups_on_device(self, groups: Sequence[Clip], size: tuple[int, int]) -> list[list[Tensor]]:
        """Per clip and prompt a bool mask [T, H, W] on the tracker's device; boxes and masks are in a grid of `size`
        (H, W), whatever the size of the frames.
        """

    def track_group(self, frames: Sequence[np.ndarray], prompts: Sequence[BoxPrompt]) -> list[np.ndarray]:
        """Per prompt a bool mask [T, H, W]; boxes and masks are in pixels of the frames."""

    def track_video(self, read_frame: ReadFrame, total: int, prompt: BoxPrompt) -> Iterator[TrackedFrame]:
        """(index, bool mask [H, W]) of every frame once, in any order, in memory that does not grow with the video."""


class BaseTracker(ABC):
    """A tracker out of one method, `track`.

    Args:
        device: where the tracker computes.
    """

    max_frames: int = 256

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    @abstractmethod
    def track(self, read_frame: ReadFrame, total: int, keyframe: int, boxes: np.ndarray) -> Iterable[TrackedFrame]:
        """The union of the boxes' objects on every frame of a video.

        Args:
            read_frame: frame index -> uint8 [H, W, 3] RGB.
            total: frames of the video.
            keyframe: the frame that the boxes are on.
            boxes: float [K, 4], x1 y1 x2 y2 in pixels of the frames, finite, at least one.

        Returns:
            (index, mask [H, W], bool or 0 and 1) of every frame once, in any order.
        """

    @classmethod
    def from_options(cls, device: str | torch.device, **options: Any) -> BaseTracker:
        """Build the tracker; `options` are `worker.reward.tracker_options` or `tracker_options=` of the evaluation."""
        return cls(device=device, **options)

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Refuse options in one line before anything is loaded. Raises DataError."""
        check_arguments(cls, options, "tracker_options", given=("device",))

    def prepare(self, frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Compute what depends on a clip's frames alone; what is returned takes their place in the other methods."""
        return frames

    def track_groups_on_device(self, groups: Sequence[Clip], size: tuple[int, int]) -> list[list[Tensor]]:
        return [self._track_clip(frames, prompts, size) for frames, prompts in groups]

    def track_group_on_device(
        self, frames: Sequence[np.ndarray], prompts: Sequence[BoxPrompt], size: tuple[int, int] | None = None
    ) -> list[Tensor]:
        """`track_groups_on_device` of one clip; the grid is that of the frames by default."""
        return self.track_groups_on_device([(frames, prompts)], size or frames[0].shape[:2])[0]

    def track_group(self, frames: Sequence[np.ndarray], prompts: Sequence[BoxPrompt]) -> list[np.ndarray]:
        return [masks.cpu().numpy() for masks in self.track_group_on_device(frames, prompts)]

    def track_video(self, read_frame: ReadFrame, total: int, prompt: BoxPrompt) -> Iterator[TrackedFrame]:
        if not 0 <= prompt.keyframe < total:
            raise ValueError(f"keyframe {prompt.keyframe} is outside a clip of {total} frames")
        boxes = np.asarray(prompt.boxes, dtype=np.float64).reshape(-1, 4)
        boxes = boxes[(np.abs(boxes) <= MAX_COORDINATE).all(1)]  # NaN is not
        if not len(boxes):
            empty = np.zeros(read_frame(prompt.keyframe).shape[:2], dtype=bool)
            yield from ((index, empty) for index in range(total))
            return
        missing = set(range(total))
        for index, mask in self.track(read_frame, total, prompt.keyframe, boxes):
            if index not in missing:
                raise ValueError(f"{type(self).__name__}.track gave frame {index} twice, or there is no such frame")
            missing.remove(index)
            yield index, np.asarray(mask).astype(bool, copy=False)
        if missing:
            raise ValueError(f"{type(self).__name__}.track gave no mask for frame {min(missing)} of {total}")

    def _track_clip(
        self, frames: Sequence[np.ndarray], prompts: Sequence[BoxPrompt], size: tuple[int, int]
    ) -> list[Tensor]:
        """Masks of one clip in a grid of `size`; equal prompts are tracked once."""
        height, width = frames[0].shape[:2]
        scale = np.array([width / size[1], height / size[0]] * 2)
        tracked: dict[tuple[int, bytes], Tensor] = {}
        found = []
        for prompt in prompts:
            boxes = np.asarray(prompt.boxes, dtype=np.float64).reshape(-1, 4)
            key = prompt.keyframe, boxes.tobytes()
            if key not in tracked:
                with np.errstate(over="ignore", invalid="ignore"):
                    in_frame = BoxPrompt(prompt.keyframe, boxes * scale)
                masks = torch.zeros(len(frames), height, width, dtype=torch.bool)
                for index, mask in self.track_video(frames.__getitem__, len(frames), in_frame):
                    masks[index] = torch.from_numpy(mask)
                tracked[key] = resize_masks(masks, size).to(self.device)
            found.append(tracked[key])
        return found


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool masks [T, H, W] in a grid of `size`, by nearest neighbour."""
    if masks.shape[1:] == size:
        return masks
    return F.interpolate(masks[None].float(), size, mode="nearest")[0] > 0.5
