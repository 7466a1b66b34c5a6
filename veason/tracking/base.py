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
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veason.errors import DataError
from veason.masks import decode, encode
from veason.registry import check_arguments
from veason.tracking.tracker_prompts import (
    BoxPrompt,
    MultiObjectPrompt,
    ObjectPrompt,
    Prompt,
    box_objects,
    group_by,
    keyframes_of,
    usable_objects,
)

ReadFrame = Callable[[int], np.ndarray]  # frame index -> uint8 [H, W, 3] RGB
TrackedFrame = tuple[int, np.ndarray]  # frame index, bool mask [H, W]
# frames, uint8 [H, W, 3] RGB each, and what is tracked in them
ClipPrompts = tuple[Sequence[np.ndarray], Sequence[Prompt]]


class Tracker(Protocol):
    """What the reward, the evaluation and the prediction use.

    Attributes:
        max_frames: longest clip that `track_group` and `track_groups_on_device` are to be given; the evaluation and the
            prediction stream longer videos through `track_video`.
        takes_points: whether it takes a `MultiObjectPrompt` with points or several keyframes of one object.
        takes_text: whether it takes a `TextPrompt`, and nothing else: it finds the objects itself, without a policy.
    """

    max_frames: int
    takes_points: ClassVar[bool]
    takes_text: ClassVar[bool]

    def encode_frames(self, frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Compute what depends on a clip's frames alone; what is returned takes their place in the other methods."""

    def track_groups_on_device(self, groups: Sequence[ClipPrompts], size: tuple[int, int]) -> list[list[Tensor]]:
        """Per clip and prompt a bool mask [T, H, W] on the tracker's device; boxes and masks are in a grid of `size`
        (H, W), whatever the size of the frames.
        """

    def track_group(self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """Per prompt a bool mask [T, H, W]; boxes and masks are in pixels of the frames."""

    def track_video(self, read_frame: ReadFrame, total: int, prompt: Prompt) -> Iterator[TrackedFrame]:
        """(index, bool mask [H, W]) of every frame once, in any order, in memory that does not grow with the video."""


class BaseTracker(ABC):
    """A tracker out of one method, `track`; one that takes points overrides `track_objects` as well.

    Args:
        device: where the tracker computes.
    """

    max_frames: int = 256
    takes_points: ClassVar[bool] = False
    takes_text: ClassVar[bool] = False

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

    def warm_up(self) -> None:  # noqa: B027  # optional
        """Compile what is compiled, before other threads compute; nothing by default."""

    def encode_frames(self, frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Compute what depends on a clip's frames alone; what is returned takes their place in the other methods."""
        return frames

    def track_groups_on_device(self, groups: Sequence[ClipPrompts], size: tuple[int, int]) -> list[list[Tensor]]:
        return [self._track_clip(frames, prompts, size) for frames, prompts in groups]

    def track_group_on_device(
        self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt], size: tuple[int, int] | None = None
    ) -> list[Tensor]:
        """`track_groups_on_device` of one clip; the grid is that of the frames by default."""
        return self.track_groups_on_device([(frames, prompts)], size or frames[0].shape[:2])[0]

    def track_group(self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[np.ndarray]:
        return [masks.cpu().numpy() for masks in self.track_group_on_device(frames, prompts)]

    def track_objects(
        self, read_frame: ReadFrame, total: int, objects: Sequence[ObjectPrompt]
    ) -> Iterable[TrackedFrame]:
        """The union of objects, at least one, on every frame of a video; what `track` is for boxes on one frame.

        Args:
            objects: with coordinates in pixels of the frames, finite, and their keyframes in order.

        Raises:
            DataError: points, or several keyframes of an object, and the tracker does not take them.
        """
        boxes = box_objects(objects)
        if boxes is None:
            raise DataError(f"{type(self).__name__} takes boxes on one keyframe, no points and no further keyframes")
        passes = [self.track(read_frame, total, keyframe, boxes[keyframe]) for keyframe in boxes]
        return union_of_passes([self._checked(each, total) for each in passes])

    def track_video(self, read_frame: ReadFrame, total: int, prompt: Prompt) -> Iterator[TrackedFrame]:
        objects = usable_objects(prompt, total)
        if not objects:
            empty = np.zeros(read_frame(0).shape[:2], dtype=bool)
            yield from ((index, empty) for index in range(total))
            return
        yield from self._checked(self.track_objects(read_frame, total, objects), total)

    def _checked(self, masks: Iterable[TrackedFrame], total: int) -> Iterator[TrackedFrame]:
        """The frames of one pass as bool masks. Raises ValueError where one is missing, twice there or outside."""
        missing = set(range(total))
        for index, mask in masks:
            if index not in missing:
                raise ValueError(f"{type(self).__name__}.track gave frame {index} twice, or there is no such frame")
            missing.remove(index)
            yield index, np.asarray(mask).astype(bool, copy=False)
        if missing:
            raise ValueError(f"{type(self).__name__}.track gave no mask for frame {min(missing)} of {total}")

    def _track_clip(
        self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt], size: tuple[int, int]
    ) -> list[Tensor]:
        """Masks of one clip in a grid of `size`; equal prompts are tracked once."""
        height, width = frames[0].shape[:2]
        factors = np.array([width / size[1], height / size[0]])
        tracked: dict[Hashable, Tensor] = {}
        found = []
        for prompt in prompts:
            objects = usable_objects(prompt, len(frames), factors)
            key = prompt_key(objects)
            if key not in tracked:
                masks = torch.zeros(len(frames), height, width, dtype=torch.bool)
                for index, mask in self.track_video(frames.__getitem__, len(frames), MultiObjectPrompt(tuple(objects))):
                    masks[index] = torch.from_numpy(mask)
                tracked[key] = resize_masks(masks, size).to(self.device)
            found.append(tracked[key])
        return found


class PointTracker(BaseTracker):
    """A tracker that takes points and several keyframes of one object: out of one pass per set of keyframes."""

    takes_points: ClassVar[bool] = True

    @abstractmethod
    def track_pass(self, read_frame: ReadFrame, total: int, objects: Sequence[ObjectPrompt]) -> Iterator[TrackedFrame]:
        """The union of objects that have the same keyframes, on every frame of a video."""

    def track(self, read_frame: ReadFrame, total: int, keyframe: int, boxes: np.ndarray) -> Iterator[TrackedFrame]:
        return self.track_objects(read_frame, total, BoxPrompt(keyframe, boxes).objects)

    def track_objects(
        self, read_frame: ReadFrame, total: int, objects: Sequence[ObjectPrompt]
    ) -> Iterator[TrackedFrame]:
        passes = group_by(objects, keyframes_of).values()
        return union_of_passes([self.track_pass(read_frame, total, together) for together in passes])


def prompt_key(objects: Sequence[ObjectPrompt]) -> Hashable:
    """Equal for objects that are prompted alike."""
    return tuple(
        tuple((each.frame, *(part.tobytes() for part in each.corners_and_points)) for each in item) for item in objects
    )


def union_of_passes(passes: Sequence[Iterable[TrackedFrame]]) -> Iterator[TrackedFrame]:
    """The union of several passes over one video, in the order of the last; earlier ones are held run-length encoded.

    Memory therefore grows by some kilobytes a frame where there is more than one pass.
    """
    *earlier, last = passes
    held = [{index: encode(mask) for index, mask in each} for each in earlier]
    for index, mask in last:
        yield index, np.logical_or.reduce([mask, *(decode(each[index]) for each in held)])


def compute_dtype(device: torch.device, dtype: torch.dtype | str | None) -> torch.dtype:
    """A torch dtype given as such or by its name; bf16 on a GPU and fp32 on the CPU when None."""
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool masks [T, H, W] in a grid of `size`, by nearest neighbour."""
    if masks.shape[1:] == size:
        return masks
    return F.interpolate(masks[None].float(), size, mode="nearest")[0] > 0.5
