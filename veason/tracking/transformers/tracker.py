"""Any tracker of transformers that has SAM 2's interface: SAM 2, SAM 3's tracker, EdgeTAM.

The decoder runs once per object and frame, as transformers' model does it; frames are encoded once for all objects of
a clip. `veason.tracking.sam2` and `veason.tracking.sam3` compute the same with all objects in one batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veason.registry import check_arguments
from veason.tracking.base import ClipPrompts, PointTracker, ReadFrame, TrackedFrame, compute_dtype, prompt_key
from veason.tracking.sam2.preprocessing import preprocess_frames
from veason.tracking.sam2.propagation import propagation_order
from veason.tracking.tracker_prompts import ObjectPrompt, group_by, keyframes_of, usable_objects
from veason.tracking.transformers.loading import PIXELS, check_checkpoint_source, load_model
from veason.tracking.transformers.object_session import ClipFeatures, ObjectSession

ENCODER_BATCH = 8  # frames of 1024 pixels


class TransformersTracker(PointTracker):
    """A tracker of transformers on one device.

    Args:
        model: `Sam2VideoModel`, `Sam3TrackerVideoModel` or `EdgeTamVideoModel`, on its device.
        max_objects: objects tracked in one session; a session holds about 6 MiB an object and frame at 1024 pixels.
        max_frames: frames of a clip whose features are held at once (about 16 MB each at 1024 pixels).
    """

    def __init__(self, model: Any, max_objects: int = 32, max_frames: int = 16):
        super().__init__(model.device)
        self.model, self.max_objects, self.max_frames = model, max_objects, max_frames
        self.size = model.image_size if isinstance(model.image_size, int) else model.image_size[0]

    @classmethod
    def from_options(
        cls,
        device: str | torch.device,
        checkpoint: str | os.PathLike | None = None,
        config: str | os.PathLike | None = None,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> TransformersTracker:
        """Load a model.

        Args:
            checkpoint: a folder of transformers with config.json and *.safetensors, or "random".
            config: for random weights: a config.json, a folder with one, or a model type such as sam2_video.
            dtype: a torch dtype or its name; bf16 on a GPU and fp32 on the CPU when None.
            options: the constructor's.
        """
        device = torch.device(device)
        return cls(load_model(checkpoint, config, device, compute_dtype(device, dtype)), **options)

    @classmethod
    def check_options(
        cls,
        checkpoint: str | os.PathLike | None = None,
        config: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        """Refuse a checkpoint that is not there or of another kind, and unknown options."""
        check_arguments(cls, options, "tracker_options", given=("model",), also=("checkpoint", "config", "dtype"))
        check_checkpoint_source(checkpoint, config)

    def track_groups_on_device(self, groups: Sequence[ClipPrompts], size: tuple[int, int]) -> list[list[Tensor]]:
        """As the protocol says; a clip of up to `max_frames` frames is encoded once, and equal objects tracked once.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        return [self._track_whole(frames, prompts, size) for frames, prompts in groups]

    def _track_whole(self, frames: Sequence[np.ndarray], prompts: Sequence[Any], size: tuple[int, int]) -> list[Tensor]:
        total, scale = len(frames), self.size / np.array([size[1], size[0]], dtype=np.float64)
        masks = torch.zeros(len(prompts), total, *size, dtype=torch.bool, device=self.device)
        distinct: dict = {}  # key -> the object and the prompts that it belongs to
        for number, prompt in enumerate(prompts):
            for item in usable_objects(prompt, total, scale):
                distinct.setdefault(prompt_key([item]), (item, set()))[1].add(number)
        features = None
        for keyframes, together in group_by(distinct.values(), lambda each: keyframes_of(each[0])).items():
            order = propagation_order(keyframes, total)
            if features is None or total > self.max_frames:  # a short clip's are shared
                features = self._features(frames.__getitem__, order)
            for start in range(0, len(together), self.max_objects):
                chunk = together[start : start + self.max_objects]
                session = ObjectSession(self.model, [item for item, _ in chunk], total, features)
                for frame in order:
                    tracked = _resize(session.track(frame), size)
                    for (_, wanted), mask in zip(chunk, tracked, strict=True):
                        for number in wanted:
                            masks[number, frame] |= mask
        return list(masks)

    def track_pass(self, read_frame: ReadFrame, total: int, objects: Sequence[ObjectPrompt]) -> Iterator[TrackedFrame]:
        """Objects with the same keyframes, in pixels of the frames, as a stream."""
        order = propagation_order(keyframes_of(objects[0]), total)
        size = read_frame(order[0]).shape[:2]
        scale = self.size / np.array([size[1], size[0]], dtype=np.float64)
        scaled = [tuple(each.scaled(scale) for each in item) for item in objects]
        features = self._features(read_frame, order)
        sessions = [
            ObjectSession(self.model, scaled[start : start + self.max_objects], total, features)
            for start in range(0, len(scaled), self.max_objects)
        ]
        for frame in order:
            union = [_resize(session.track(frame), size).any(0) for session in sessions]
            yield frame, torch.stack(union).any(0).cpu().numpy()

    def _features(self, read_frame: ReadFrame, order: Sequence[int]) -> ClipFeatures:
        pixels = PIXELS[type(self.model).__name__]

        def read_pixels(frames: Sequence[int]) -> Tensor:
            found = [read_frame(frame) for frame in frames]
            return preprocess_frames(found, self.size, self.device, pixels).to(self.model.dtype)

        batch = ENCODER_BATCH * max(1, (1024 // self.size) ** 2)
        return ClipFeatures(self.model, read_pixels, order, self.max_frames, batch)


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool masks [N, H, W] of mask logits [N, 1, h, w]."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[:, 0] > 0
