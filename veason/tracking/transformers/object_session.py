"""transformers' inference sessions in bounded memory: frames are encoded in chunks, and old outputs are dropped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from veason.tracking.tracker_prompts import ObjectPrompt, keyframes_of

MEMORY_OUTPUTS = ("maskmem_features", "maskmem_pos_enc", "object_pointer")  # what later frames attend to


class ClipFeatures:
    """The image features of a clip, a chunk of frames at a time; a session's `cache`, shared by several sessions.

    Args:
        model: of transformers, such as `Sam2VideoModel`.
        read_pixels: frame indices -> float [n, 3, S, S].
        order: all frames, in the order in which they will be asked for.
        capacity: frames that are held at once.
        batch: frames that are encoded at once.
    """

    def __init__(
        self,
        model: Any,
        read_pixels: Callable[[Sequence[int]], Tensor],
        order: Sequence[int],
        capacity: int,
        batch: int,
    ):
        self.model, self.read_pixels, self.order = model, read_pixels, list(order)
        self.capacity, self.batch = max(1, min(capacity, len(self.order))), batch
        self.position = {frame: number for number, frame in enumerate(self.order)}
        self.held: dict[int, dict[str, list[Tensor]]] = {}

    def get_vision_features(self, frame: int) -> dict[str, list[Tensor]]:
        """As the model's `_prepare_vision_features` caches them: maps [h * w, 1, C] and their encoding of positions."""
        if frame not in self.held:
            self._load(self.position[frame] // self.capacity * self.capacity)
        return self.held[frame]

    @torch.inference_mode()
    def _load(self, start: int) -> None:
        self.held = {}  # its memory, before the next chunk's
        chunk = self.order[start : start + self.capacity]
        for first in range(0, len(chunk), self.batch):
            frames = chunk[first : first + self.batch]
            found = self.model.get_image_features(self.read_pixels(frames), return_dict=True)
            for row, frame in enumerate(frames):
                self.held[frame] = {
                    "vision_feats": [each[:, row : row + 1] for each in found.fpn_hidden_states],
                    "vision_pos_embeds": [_row(each, row) for each in found.fpn_position_encoding],
                }


class ObjectSession:
    """Objects with the same keyframes in one inference session.

    Args:
        objects: in pixels of the model's frame.
        total: frames of the clip.
        features: of the clip's frames.
    """

    def __init__(self, model: Any, objects: Sequence[ObjectPrompt], total: int, features: ClipFeatures):
        self.model, self.keyframes = model, keyframes_of(objects[0])
        self.reach = max(model.config.num_maskmem, model.config.max_object_pointers_in_encoder)
        kind = type(model).__name__.removesuffix("Model") + "InferenceSession"
        device, dtype = model.device, model.dtype
        self.state = getattr(sys.modules[type(model).__module__], kind)(
            inference_device=device, inference_state_device=device, video_storage_device=device, dtype=dtype
        )
        self.state.processed_frames = range(total)  # of its length alone: the features come from the cache
        self.state.cache = features
        for number, item in enumerate(objects):
            index = self.state.obj_id_to_idx(number)
            for given in item:
                points, labels = (torch.from_numpy(each)[None, None] for each in given.corners_and_points)
                inputs = {"point_coords": points.float(), "point_labels": labels.int()}
                self.state.add_point_inputs(index, given.frame, inputs)

    def track(self, frame: int) -> Tensor:
        """Mask logits [N, 1, h, w] on one frame; frames are asked for in `propagation_order`.

        Raises:
            RuntimeError: the model computed something that is not finite.
        """
        if frame in self.keyframes:
            self.state.obj_with_new_inputs = list(self.state.obj_ids)
        found = self.model(self.state, frame_idx=frame, reverse=frame < self.keyframes[0])
        # NaN > 0 is false, and NaN logits are hidden where the score is NaN: a broken model would pass for empty masks
        if not (found.pred_masks.isfinite().all() and found.object_score_logits.isfinite().all()):
            raise RuntimeError(f"{type(self.model).__name__} computed mask logits or object scores that are not finite")
        self._prune(frame)
        return found.pred_masks

    def _prune(self, frame: int) -> None:
        """Drop what no later frame attends to; the frames after the first keyframe wait for the backward pass."""
        for outputs in self.state.output_dict_per_obj.values():
            tracked = outputs["non_cond_frame_outputs"]
            first = self.keyframes[0]
            for past in list(tracked):
                waits = past - first <= self.reach and frame >= first
                if abs(past - frame) > self.reach and not waits:
                    del tracked[past]
            for kept in (tracked, outputs["cond_frame_outputs"]):
                if frame in kept:
                    kept[frame] = {name: kept[frame][name] for name in MEMORY_OUTPUTS}
        for frames in self.state.frames_tracked_per_obj.values():
            frames.clear()  # of use where prompts are added later


def _row(positions: Tensor, row: int) -> Tensor:
    """One frame's encoding of positions [h * w, 1, C], which may be shared by all frames of a batch."""
    return positions if positions.shape[1] == 1 else positions[:, row : row + 1]
