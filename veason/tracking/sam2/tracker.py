"""SAM 2 as a tracker: objects of many prompts and clips advance through the network as one batch.

Built on the sam2 package's own networks and equal to its video predictor for the same boxes, points and frames, forward
from an object's first keyframe and then backward. What differs is the order of the work: each frame is encoded once,
for all objects, and objects are propagated together, wherever their keyframes are. No state is kept between calls, and
memory is bounded: objects and frames beyond a chunk wait their turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veason.errors import DataError
from veason.registry import check_arguments
from veason.tracking.base import ClipPrompts, PointTracker, ReadFrame, TrackedFrame, compute_dtype
from veason.tracking.sam2.compilation import CompileOptions
from veason.tracking.sam2.config_matching import check_weights_match
from veason.tracking.sam2.feature_window import EncodedClip, FeatureWindow, encode_frames
from veason.tracking.sam2.loading import DEFAULT_CONFIG, RANDOM, check_files, load_model
from veason.tracking.sam2.network import Sam2Network, concat_features, to_device
from veason.tracking.sam2.object_batch import BatchObject, FeatureLookup, ObjectBatch
from veason.tracking.sam2.preprocessing import SAM2_PIXELS, PixelFormat
from veason.tracking.sam2.propagation import propagation_order
from veason.tracking.tracker_prompts import (
    BoxPrompt,
    MultiObjectPrompt,
    ObjectPrompt,
    Prompt,
    group_by,
    keyframes_of,
    usable_objects,
)

WARM_UP_FRAMES = 3  # a prompted one, and two that attend to one memory and to two
STREAM_CHUNK = 32  # frames of a streamed video that are read together; tracking starts when the first chunk is there


class Sam2Tracker(PointTracker):
    """A SAM 2 model on one device.

    Args:
        model: sam2's `SAM2Base`, on its device.
        dtype: bf16 computes under autocast; fp32 is exact.
        max_objects: objects tracked at once; 32 for a model of 1024 pixels, and more for a smaller one, when None.
        max_frames: frames of a clip whose features are held at once (about 16 MB each at 1024 pixels).
        compile_options: what runs under torch.compile; decided by the model when None.
    """

    pixels: ClassVar[PixelFormat] = SAM2_PIXELS

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype = torch.float32,
        max_objects: int | None = None,
        max_frames: int = 16,
        compile_options: CompileOptions | None = None,
    ):
        super().__init__(next(model.parameters()).device)
        self.network = Sam2Network(model, dtype, compile_options or CompileOptions.for_model(model), self.pixels)
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
        return cls(load_model(config, checkpoint, chosen), compute_dtype(chosen, dtype), **options)

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
        """Refuse a configuration without SAM 2's package, model file or weights of that model, and unknown options."""
        check_arguments(cls, options, "tracker_options", given=("model",), also=("sam2_config", "sam2_checkpoint"))
        check_package("sam2")
        check_files(config, checkpoint)
        if checkpoint != RANDOM:
            check_weights_match(str(config), str(checkpoint))

    def warm_up(self) -> None:
        """Compile the network for clips of several frames with one object and with several; two minutes where nothing
        is cached, on a GPU of 2022. Other numbers of frames and objects need no further compilation.
        """
        if not self.network.compiled:
            return
        side = self.network.size
        frames = [np.zeros((side, side, 3), dtype=np.uint8)] * WARM_UP_FRAMES
        boxes = np.array([[0, 0, side / 2, side / 2], [side / 4, side / 4, side, side]], dtype=np.float32)
        for count in (1, 2):
            self.track_group_on_device(frames, [BoxPrompt(0, boxes[:count])])

    def encode_frames(self, frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Encode the frames of a clip that is short enough to be held as a whole."""
        return EncodedClip(frames, encode_frames(self.network, frames)) if len(frames) <= self.max_frames else frames

    def track_groups_on_device(self, groups: Sequence[ClipPrompts], size: tuple[int, int]) -> list[list[Tensor]]:
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

    def track_pass(self, read_frame: ReadFrame, total: int, objects: Sequence[ObjectPrompt]) -> Iterator[TrackedFrame]:
        """The keyframes, then from the first one to the end and backward from it to the start.

        `read_frame` is called in a thread of its own, which prefetches frames.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        order = propagation_order(keyframes_of(objects[0]), total)
        size = read_frame(order[0]).shape[:2]
        found = self._objects([MultiObjectPrompt(tuple(objects))], total, size)
        # One window for all batches, which are on the same frame.
        window = FeatureWindow(self.network, read_frame, order, min(self.max_frames, STREAM_CHUNK))
        batches = [
            ObjectBatch(self.network, [each.item for each in chunk], total)
            for chunk in _chunks(found, self.max_objects)
        ]
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

    def _track_clips(self, clips: Sequence[ClipPrompts], size: tuple[int, int]) -> Iterator[list[Tensor]]:
        """Clips of one length; several of them where they are short."""
        total = len(clips[0][0])
        long = total > self.max_frames
        counts = [len(prompts) for _, prompts in clips]
        masks = torch.zeros(sum(counts), total, *size, dtype=torch.bool, device="cpu" if long else self.device)
        objects: list[_TrackedObject] = []
        for clip, (_, prompts) in enumerate(clips):
            objects += self._objects(prompts, total, size, clip * total, sum(counts[:clip]))
        # A short clip is encoded as a whole; a long one chunk by chunk, once for the objects of each set of keyframes.
        passes = [objects]
        if long:
            passes = list(group_by(objects, lambda each: each.item.keyframes).values())
        checksums = []
        for together in passes:
            if long:
                order = propagation_order(together[0].item.keyframes, total)
                lookup: FeatureLookup = FeatureWindow(self.network, clips[0][0].__getitem__, order, self.max_frames)
            else:
                lookup = self._features_of([frames for frames, _ in clips])
            for chunk in _chunks(together, self.max_objects):
                batch = ObjectBatch(self.network, [each.item for each in chunk], total)
                for step_frames, tracked in self._run(batch, lookup, size):
                    _merge_masks(masks, chunk, step_frames, tracked.to(masks.device))
                checksums.append(batch.checksum)
        _check_finite(checksums)
        return map(list, masks.split(counts))

    def _features_of(self, clips: Sequence[Sequence[np.ndarray]]) -> FeatureLookup:
        """The features of short clips in a row; frames that are not prepared are encoded together."""
        if any(isinstance(clip, EncodedClip) for clip in clips):
            encoded = (clip if isinstance(clip, EncodedClip) else self.encode_frames(clip) for clip in clips)
            features = concat_features((clip.features for clip in encoded), sum(map(len, clips)))  # type: ignore[attr-defined]
        else:
            features = encode_frames(self.network, [frame for clip in clips for frame in clip])
        return lambda frames: features[to_device(frames, self.device)]

    def _objects(
        self, prompts: Sequence[Prompt], total: int, size: tuple[int, int], start: int = 0, first: int = 0
    ) -> list[_TrackedObject]:
        """The distinct objects of a clip's prompts.

        Args:
            start: where the clip begins in a row of several.
            first: the number of the clip's first prompt among those of all clips.
        """
        found: dict[Hashable, _TrackedObject] = {}
        scale = self.network.size / np.array([size[1], size[0]], dtype=np.float64)
        for number, prompt in enumerate(prompts, start=first):
            for each in usable_objects(prompt, total, scale):
                item = BatchObject.make(each, start)
                tracked = found.setdefault(item.key, _TrackedObject(item, []))
                if number not in tracked.prompts:
                    tracked.prompts.append(number)
        return list(found.values())

    @staticmethod
    def _run(batch: ObjectBatch, lookup: FeatureLookup, size: tuple[int, int]) -> Iterator[tuple[list[int], Tensor]]:
        """Per step the frame of each object of a batch and its mask, bool [N, H, W]."""
        for frames, logits in batch.run(lookup):
            yield frames, F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0] > 0


def check_package(tracker: str) -> None:
    """Raise DataError where the package sam2, whose modules `tracker` is built of, is not installed."""
    if find_spec("sam2") is None:
        raise DataError(f"tracker={tracker} needs the package sam2, which is not installed")


@dataclass
class _TrackedObject:
    item: BatchObject
    prompts: list[int]  # the prompts that it is an object of


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
        prompts, indices, rows = to_device(entries, masks.device).unbind(1)
        masks[prompts, indices] |= tracked[rows]


def _check_finite(checksums: Sequence[Tensor]) -> None:
    """Wait for the device once and check that its results are finite: NaN > 0 is false, so a broken model would pass
    for empty masks.
    """
    if checksums and not torch.stack(list(checksums)).isfinite().all():
        raise RuntimeError("SAM 2 computed mask logits or object scores that are not finite")


def _chunks(items: list, size: int) -> Iterator[list]:
    return (items[start : start + size] for start in range(0, len(items), size))
