"""SAM 2 as a tracker: objects of many prompts and clips advance through the network as one batch.

Built on the sam2 package's own networks and equal to its video predictor for the same boxes and frames, forward from
the keyframe and then backward. What differs is the order of the work: each frame is encoded once, for all objects, and
objects are propagated together, wherever their keyframes are. No state is kept between calls, and memory is bounded:
objects and frames beyond a chunk wait their turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veason.errors import DataError
from veason.resolve import check_arguments
from veason.tracking.base import MAX_COORDINATE, BaseTracker, BoxPrompt, Clip, ReadFrame, TrackedFrame
from veason.tracking.sam2.compilation import CompileOptions
from veason.tracking.sam2.feature_window import FeatureWindow
from veason.tracking.sam2.loading import DEFAULT_CONFIG, check_files, load_model
from veason.tracking.sam2.network import Network, to_device
from veason.tracking.sam2.object_batch import ObjectBatch
from veason.tracking.sam2.propagation import propagation_order

STREAM_CHUNK = 32  # frames of a streamed video that are read together; tracking starts when the first chunk is there


class Sam2Tracker(BaseTracker):
    """A SAM 2 model on one device.

    Args:
        model: sam2's `SAM2Base`, on its device.
        dtype: bf16 computes under autocast; fp32 is exact.
        max_objects: objects tracked at once; 32 for a model of 1024 pixels, and more for a smaller one, when None.
        max_frames: frames of a clip whose features are held at once (about 16 MB each at 1024 pixels).
        compile_options: what runs under torch.compile; decided by the model when None.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype = torch.float32,
        max_objects: int | None = None,
        max_frames: int = 16,
        compile_options: CompileOptions | None = None,
    ):
        super().__init__(next(model.parameters()).device)
        self.network = Network(model, dtype, compile_options or CompileOptions.for_model(model))
        self.max_objects, self.max_frames = max_objects or 32 * self.network.batch_scale, max_frames

    @classmethod
    def from_files(
        cls,
        config: str | os.PathLike = DEFAULT_CONFIG,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> Sam2Tracker:
        """Load a model.

        Args:
            config: a SAM 2 or 2.1 model file, or the name of one inside the sam2 package.
            checkpoint: its weights; None or "random" leaves them random.
            device: a GPU where there is one, when None.
            dtype: a torch dtype or its name; bf16 on a GPU and fp32 on the CPU when None.
            options: the constructor's.
        """
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if chosen.type == "cuda" else torch.float32)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return cls(load_model(config, checkpoint, chosen), dtype, **options)

    @classmethod
    def from_options(cls, device: str | torch.device, **options: Any) -> Sam2Tracker:
        """`from_files` with its arguments from a configuration."""
        return cls.from_files(device=device, **options)

    @classmethod
    def check_options(
        cls,
        config: str | os.PathLike | None = None,
        checkpoint: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        """Refuse a configuration without SAM 2's package, model file or weights, and unknown options."""
        check_arguments(cls, options, "tracker_options", given=("model",))
        if find_spec("sam2") is None:
            raise DataError("tracker=sam2 needs the package sam2, which is not installed")
        check_files(config, checkpoint)

    def track_groups_on_device(self, groups: Sequence[Clip], size: tuple[int, int]) -> list[list[Tensor]]:
        """Per clip and prompt a bool mask [T, H, W] in a grid of `size`; long clips are left on the host.

        Short clips of equal length go through the network together, as many as there is room for: a small network is
        bound by launches, not by arithmetic. Frames are encoded once, and equal boxes are tracked once.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        found: dict[int, list[Tensor]] = {}
        for members in self._batch_clips([len(frames) for frames, _ in groups]):
            found |= zip(members, self._track_clips([groups[number] for number in members], size), strict=True)
        return [found[number] for number in range(len(groups))]

    def track(self, read_frame: ReadFrame, total: int, keyframe: int, boxes: np.ndarray) -> Iterator[TrackedFrame]:
        """From the keyframe to the end, then backward from the keyframe to the start.

        `read_frame` is called in a thread of its own, which prefetches frames.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        size = read_frame(keyframe).shape[:2]
        objects = self._objects([BoxPrompt(keyframe, boxes)], total, size)
        if not objects:
            yield from ((frame, np.zeros(size, dtype=bool)) for frame in range(total))
            return
        order = propagation_order(keyframe, total)
        # One window for all batches, which are on the same frame.
        window = FeatureWindow(self.network, read_frame, order, min(self.max_frames, STREAM_CHUNK))
        batches = [self._object_batch(chunk, total) for chunk in _chunks(objects, self.max_objects)]
        runs = [self._run(batch, window, size) for batch in batches]
        for frame, steps in zip(order, zip(*runs, strict=True), strict=True):
            _check_finite([batch.checksum for batch in batches])
            yield frame, torch.stack([masks.any(0) for _, masks in steps]).any(0).cpu().numpy()

    def _batch_clips(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of the clips that are tracked at once."""
        for length in sorted(set(lengths)):
            equal = [number for number, other in enumerate(lengths) if other == length]
            room = max(1, self.max_frames * self.network.batch_scale // length) if length <= self.max_frames else 1
            yield from _chunks(equal, room)

    def _track_clips(self, clips: Sequence[Clip], size: tuple[int, int]) -> Iterator[list[Tensor]]:
        """Clips of one length; several of them where they are short."""
        total = len(clips[0][0])
        long = total > self.max_frames
        counts = [len(prompts) for _, prompts in clips]
        masks = torch.zeros(sum(counts), total, *size, dtype=torch.bool, device="cpu" if long else self.device)
        objects: list[_TrackedObject] = []
        for clip, (_, prompts) in enumerate(clips):
            objects += self._objects(prompts, total, size, clip * total, sum(counts[:clip]))
        frames = clips[0][0] if len(clips) == 1 else [frame for frames, _ in clips for frame in frames]
        # A short clip is encoded as a whole; a long one chunk by chunk, once for the objects of each keyframe.
        passes = [objects]
        if long:
            keyframes = sorted({item.keyframe for item in objects})
            passes = [[item for item in objects if item.keyframe == keyframe] for keyframe in keyframes]
        checksums = []
        for together in passes:
            order = propagation_order(together[0].keyframe, total) if long else range(len(frames))
            window = FeatureWindow(self.network, frames.__getitem__, order, self.max_frames if long else len(frames))
            for chunk in _chunks(together, self.max_objects):
                batch = self._object_batch(chunk, total)
                for step_frames, tracked in self._run(batch, window, size):
                    _merge_masks(masks, chunk, step_frames, tracked.to(masks.device))
                checksums.append(batch.checksum)
        _check_finite(checksums)
        return map(list, masks.split(counts))

    def _objects(
        self, prompts: Sequence[BoxPrompt], total: int, size: tuple[int, int], start: int = 0, first: int = 0
    ) -> list[_TrackedObject]:
        """The distinct objects of a clip's prompts.

        Args:
            start: where the clip begins in a row of several.
            first: the number of the clip's first prompt among those of all clips.
        """
        found: dict[tuple, _TrackedObject] = {}
        for number, prompt in enumerate(prompts, start=first):
            if not 0 <= prompt.keyframe < total:
                raise ValueError(f"keyframe {prompt.keyframe} is outside a clip of {total} frames")
            scale = self.network.size / np.array([size[1], size[0]] * 2, dtype=np.float64)
            with np.errstate(over="ignore"):
                boxes = (np.asarray(prompt.boxes, dtype=np.float64).reshape(-1, 4) * scale).astype(np.float32)
            for box in boxes[(np.abs(boxes) <= MAX_COORDINATE).all(1)]:  # NaN is not
                key = prompt.keyframe, *box.tolist()
                item = found.setdefault(key, _TrackedObject(prompt.keyframe, box, start, []))
                if number not in item.prompts:
                    item.prompts.append(number)
        return list(found.values())

    def _object_batch(self, chunk: Sequence[_TrackedObject], total: int) -> ObjectBatch:
        boxes = torch.from_numpy(np.stack([item.box for item in chunk])).to(self.device, non_blocking=True)
        keyframes, starts = [item.keyframe for item in chunk], [item.start for item in chunk]
        return ObjectBatch(self.network, boxes, keyframes, total, starts)

    @staticmethod
    def _run(batch: ObjectBatch, window: FeatureWindow, size: tuple[int, int]) -> Iterator[tuple[list[int], Tensor]]:
        """Per step the frame of each object of a batch and its mask, bool [N, H, W]."""
        for frames, logits in batch.run(window):
            yield frames, F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0] > 0


@dataclass
class _TrackedObject:
    keyframe: int
    box: np.ndarray  # float32 [4] in pixels of the network's frame
    start: int  # the first frame of its clip, where several are tracked at once
    prompts: list[int]


def _merge_masks(masks: Tensor, chunk: Sequence[_TrackedObject], frames: Sequence[int], tracked: Tensor) -> None:
    """Add the masks [N, H, W] of a chunk's objects to those of the prompts that asked for them, [P, T, H, W]."""
    rounds: list[list[tuple[int, int, int]]] = []  # (prompt, frame, row), each prompt once a round
    used: Counter[int] = Counter()
    for row, (frame, item) in enumerate(zip(frames, chunk, strict=True)):
        for prompt in item.prompts:
            if used[prompt] == len(rounds):
                rounds.append([])
            rounds[used[prompt]].append((prompt, frame, row))
            used[prompt] += 1
    for entries in rounds:
        prompts, times, rows = to_device(entries, masks.device).unbind(1)
        masks[prompts, times] |= tracked[rows]


def _check_finite(checksums: Sequence[Tensor]) -> None:
    """Wait for the device once and check that its results are finite: NaN > 0 is false, so a broken model would pass
    for empty masks.
    """
    if checksums and not torch.stack(list(checksums)).isfinite().all():
        raise RuntimeError("SAM 2 computed mask logits or object scores that are not finite")


def _chunks(items: list, size: int) -> Iterator[list]:
    return (items[start : start + size] for start in range(0, len(items), size))
