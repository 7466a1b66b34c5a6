"""SAM 2 over videos in memory: from boxes on one frame to masks on all of them.

Built on the sam2 package's own networks, and equal to its video predictor for the same boxes and frames, forward from
the keyframe and then backward. What differs is the order of the work: a frame is encoded once for everybody, and
objects advance together as one batch, wherever their keyframes are. Nothing is kept from one call to the next, and
memory is bounded: objects and frames beyond a chunk wait their turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veason.tracking.sam2.batch import ObjectBatch
from veason.tracking.sam2.frames import FrameWindow
from veason.tracking.sam2.loading import load_model
from veason.tracking.sam2.network import Network, to_device
from veason.tracking.sam2.speed import Speed
from veason.tracking.sam2.visits import visit_order

__all__ = ["Prompt", "Speed", "VideoTracker"]

STREAMED = 32  # frames of a video's chunk: the next is read meanwhile, and nothing is tracked before the first is there
FARTHEST = 1e30  # pixels; much farther out a box overflows sam2's encoding of its corners


@dataclass(frozen=True)
class Prompt:
    """Boxes on one frame: one object each; the masks of a prompt are the union of its objects.

    Attributes:
        keyframe: the frame's index.
        boxes: float [K, 4], x1 y1 x2 y2 in pixels of the frames. A box that is not finite, or beyond `FARTHEST`, gives
            an empty mask.
    """

    keyframe: int
    boxes: np.ndarray


Group = tuple[
    Sequence[np.ndarray], Sequence[Prompt]
]  # a clip's frames, uint8 [H, W, 3] RGB each, and what is tracked in it


class VideoTracker:
    """A SAM 2 model on one device.

    Args:
        model: sam2's `SAM2Base`, on its device.
        dtype: bf16 computes under autocast; fp32 is exact.
        max_objects: objects tracked at once; 32 for a model of 1024 pixels, and more for a smaller one, when None.
        max_frames: frames of a clip whose features are held at once (about 16 MB each at 1024 pixels).
        speed: what is switched on to be fast.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype = torch.float32,
        max_objects: int | None = None,
        max_frames: int = 16,
        speed: Speed | None = None,
    ):
        self.device = next(model.parameters()).device
        self.network = Network(model, dtype, speed or Speed.for_model(model))
        self.max_objects, self.max_frames = max_objects or 32 * self.network.room, max_frames

    @classmethod
    def from_files(
        cls,
        config_yaml: str | os.PathLike,
        checkpoint: str | os.PathLike | None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **options,
    ) -> VideoTracker:
        """Load a model.

        Args:
            config_yaml: a SAM 2 or 2.1 model file, or the name of one inside the sam2 package.
            checkpoint: its weights; None or "random" leaves them random.
            device: a GPU where there is one, when None.
            dtype: bf16 on a GPU and fp32 on the CPU when None.
            options: the constructor's.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if place.type == "cuda" else torch.float32)
        return cls(load_model(config_yaml, checkpoint, place), dtype, **options)

    def track_group(self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """Track several prompts in one clip.

        Args:
            frames: uint8 [T, H, W, 3] RGB, or a list of [H, W, 3].

        Returns:
            Per prompt bool [T, H, W], the union of its objects. Frames are encoded once, and equal boxes are tracked
            once.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        return [masks.cpu().numpy() for masks in self.track_group_on_device(frames, prompts)]

    def on(self, frames: Sequence[np.ndarray]) -> Callable[[np.ndarray, int], np.ndarray]:
        """The tracker of one clip, as `grpo_reward.score_answer` calls it: (boxes [K, 4], keyframe) -> bool [T, H, W]."""
        return lambda boxes, keyframe: self.track_group(frames, [Prompt(keyframe, boxes)])[0]

    def track_group_on_device(
        self, frames: Sequence[np.ndarray], prompts: Sequence[Prompt], size: tuple[int, int] | None = None
    ) -> list[Tensor]:
        """The same, left on the tracker's device (long clips on the host), with boxes and masks in a grid of `size` (H,
        W).
        """
        return self.track_groups_on_device([(frames, prompts)], size or frames[0].shape[:2])[0]

    def track_groups_on_device(self, groups: Sequence[Group], size: tuple[int, int]) -> list[list[Tensor]]:
        """`track_group_on_device` of several clips with their prompts. Short ones of equal length go through the
        network together, as many as there is room for: a small network is bound by launches, not by arithmetic.
        """
        found: dict[int, list[Tensor]] = {}
        for members in self._together([len(frames) for frames, _ in groups]):
            found |= zip(members, self._track_together([groups[number] for number in members], size), strict=True)
        return [found[number] for number in range(len(groups))]

    def _together(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of clips that are tracked at once."""
        for length in sorted(set(lengths)):
            alike = [number for number, other in enumerate(lengths) if other == length]
            yield from _chunks(
                alike, max(1, self.max_frames * self.network.room // length) if length <= self.max_frames else 1
            )

    def _track_together(self, groups: Sequence[Group], size: tuple[int, int]) -> Iterator[list[Tensor]]:
        """Clips of one length; several of them where they are short."""
        total = len(groups[0][0])
        long = total > self.max_frames
        counts = [len(prompts) for _, prompts in groups]
        masks = torch.zeros(sum(counts), total, *size, dtype=torch.bool, device="cpu" if long else self.device)
        objects: list[_Object] = []
        for clip, (_, prompts) in enumerate(groups):
            objects += self._objects(prompts, total, size, clip * total, sum(counts[:clip]))
        frames = groups[0][0] if len(groups) == 1 else [frame for frames, _ in groups for frame in frames]
        # a short clip is seen as a whole; through a long one the objects of each keyframe walk together, from chunk to
        # chunk
        walks = (
            [[item for item in objects if item.keyframe == k] for k in sorted({o.keyframe for o in objects})]
            if long
            else [objects]
        )
        checksums = []
        for walk in walks:
            order = visit_order(walk[0].keyframe, total) if long else range(len(frames))
            window = FrameWindow(self.network, frames.__getitem__, order, self.max_frames if long else len(frames))
            for chunk in _chunks(walk, self.max_objects):
                batch = self._batch(chunk, total)
                for visited, tracked in self._run(batch, window, size):
                    _paint(masks, chunk, visited, tracked.to(masks.device))
                checksums.append(batch.checksum)
        _check(checksums)
        return map(list, masks.split(counts))

    def track_video(
        self, read_frame: Callable[[int], np.ndarray], total: int, prompt: Prompt
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Track one prompt through a video of any length.

        Args:
            read_frame: frame index -> uint8 [H, W, 3] RGB; called in a thread of its own, ahead of the tracking.
            total: frames of the video.

        Yields:
            (frame index, bool [H, W]): from the keyframe to the end, then backward from the keyframe to the start.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        size = read_frame(prompt.keyframe).shape[:2]
        objects = self._objects([prompt], total, size)
        if not objects:
            for frame in range(total):
                yield frame, np.zeros(size, dtype=bool)
            return
        order = visit_order(prompt.keyframe, total)
        window = FrameWindow(
            self.network, read_frame, order, min(self.max_frames, STREAMED)
        )  # one: all batches are on the same frame
        batches = [self._batch(chunk, total) for chunk in _chunks(objects, self.max_objects)]
        runs = [self._run(batch, window, size) for batch in batches]
        for frame, steps in zip(order, zip(*runs, strict=True), strict=True):
            _check([batch.checksum for batch in batches])
            yield frame, torch.stack([masks.any(0) for _, masks in steps]).any(0).cpu().numpy()

    def _objects(
        self, prompts: Sequence[Prompt], total: int, size: tuple[int, int], start: int = 0, first: int = 0
    ) -> list[_Object]:
        """The distinct objects of all prompts of a clip, which begins at frame `start` of several; its first prompt has
        number `first`.
        """
        found: dict[tuple, _Object] = {}
        for number, prompt in enumerate(prompts, start=first):
            if not 0 <= prompt.keyframe < total:
                raise ValueError(f"keyframe {prompt.keyframe} is outside a clip of {total} frames")
            scale = self.network.size / np.array([size[1], size[0]] * 2, dtype=np.float64)
            with np.errstate(over="ignore"):
                boxes = (np.asarray(prompt.boxes, dtype=np.float64).reshape(-1, 4) * scale).astype(np.float32)
            for box in boxes[(np.abs(boxes) <= FARTHEST).all(1)]:  # NaN is not
                item = found.setdefault((prompt.keyframe, *box.tolist()), _Object(prompt.keyframe, box, start, []))
                if number not in item.prompts:
                    item.prompts.append(number)
        return list(found.values())

    def _batch(self, chunk: Sequence[_Object], total: int) -> ObjectBatch:
        boxes = torch.from_numpy(np.stack([item.box for item in chunk])).to(self.device, non_blocking=True)
        return ObjectBatch(
            self.network, boxes, [item.keyframe for item in chunk], total, [item.start for item in chunk]
        )

    @staticmethod
    def _run(batch: ObjectBatch, window: FrameWindow, size: tuple[int, int]) -> Iterator[tuple[list[int], Tensor]]:
        """Visit by visit the frame of each object of a batch and its mask, bool [N, H, W]."""
        for frames, logits in batch.run(window):
            yield frames, F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0] > 0


def _paint(masks: Tensor, chunk: Sequence[_Object], frames: Sequence[int], tracked: Tensor) -> None:
    """Add the masks [N, H, W] of a chunk's objects to those of the prompts that asked for them, [P, T, H, W]."""
    turns: list[list[tuple[int, int, int]]] = []  # (prompt, frame, row), each prompt once a turn
    taken: Counter[int] = Counter()
    for row, (frame, item) in enumerate(zip(frames, chunk, strict=True)):
        for prompt in item.prompts:
            if taken[prompt] == len(turns):
                turns.append([])
            turns[taken[prompt]].append((prompt, frame, row))
            taken[prompt] += 1
    for turn in turns:
        prompts, times, rows = to_device(turn, masks.device).unbind(1)
        masks[prompts, times] |= tracked[rows]


def _check(checksums: Sequence[Tensor]) -> None:
    """Wait for the device once and see that what it computed is finite: NaN > 0 is false, so a broken model would pass
    for empty masks.
    """
    if checksums and not torch.stack(list(checksums)).isfinite().all():
        raise RuntimeError("SAM 2 computed mask logits or object scores that are not finite")


@dataclass
class _Object:
    keyframe: int
    box: np.ndarray  # float32 [4] in pixels of the network's frame
    start: int  # the first frame of its clip, where several are tracked at once
    prompts: list[int]


def _chunks(items: list, size: int) -> Iterator[list]:
    return (items[start : start + size] for start in range(0, len(items), size))
