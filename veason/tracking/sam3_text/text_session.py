"""One text in one video: transformers' SAM 3 session, a frame at a time, in memory that hardly grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MEMORY_OUTPUTS = ("maskmem_features", "maskmem_pos_enc", "object_pointer")  # what later frames attend to


class FrameObjects(NamedTuple):
    """The objects of one frame: id -> mask logits [1, h, w], and the ids that are hidden in it."""

    frame: int
    masks: dict[int, Tensor]
    hidden: set[int]


class CurrentFrame:
    """In the place of a session's frames: `total` of them, and the pixels [3, S, S] of one."""

    def __init__(self, total: int) -> None:
        self.total, self.pixels = total, torch.zeros(0)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, frame: int) -> Tensor:
        return self.pixels


class TextSession:
    """The objects that one text names, found and tracked from the first frame to the last.

    As `Sam3VideoModel.propagate_in_video_iterator`: a frame's masks come `hotstart_delay` frames later, without the
    objects that later frames did not confirm.

    Args:
        model: `Sam3VideoModel`.
        ids: int64 [1, L], the text's tokens.
        attention: int64 [1, L], 1 for a token of the text.
        frames: shared by the sessions of a video.
    """

    def __init__(self, model: Any, ids: Tensor, attention: Tensor, frames: CurrentFrame) -> None:
        from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

        self.model, self.total = model, len(frames)
        tracker = model.tracker_model.config
        self.reach = max(tracker.num_maskmem, tracker.max_object_pointers_in_encoder)
        self.conditioning = tracker.max_cond_frame_num  # keyframes that are attended to; -1: all
        self.state = Sam3VideoInferenceSession(
            inference_device=model.device,
            inference_state_device=model.device,
            video_storage_device=model.device,
            dtype=model.dtype,
        )
        self.state.processed_frames = frames
        number = self.state.add_prompt("text")
        self.state.prompt_input_ids[number], self.state.prompt_attention_masks[number] = ids, attention
        self.waiting: deque[FrameObjects] = deque()

    def step(self, frame: int) -> Iterator[FrameObjects]:
        """Process the next frame; gives the frames whose objects are final by then."""
        found = self.model(self.state, frame_idx=frame)
        self.state.hotstart_removed_obj_ids.update(found.removed_obj_ids)
        self.waiting.append(FrameObjects(frame, found.obj_id_to_mask, set(found.suppressed_obj_ids or ())))
        self._prune(frame)
        delay = self.model.hotstart_delay
        while self.waiting and (len(self.waiting) >= delay or frame == self.total - 1):
            ready = self.waiting.popleft()
            yield ready._replace(hidden=ready.hidden | self.state.hotstart_removed_obj_ids)

    def _prune(self, frame: int) -> None:
        """Drop what no later frame attends to. Of all keyframes of an object the pointers are attended to."""
        for outputs in self.state.output_dict_per_obj.values():
            tracked, keyframes = outputs["non_cond_frame_outputs"], outputs["cond_frame_outputs"]
            for past in [past for past in tracked if frame - past > self.reach]:
                del tracked[past]
            newest = sorted(keyframes)[-self.conditioning :] if self.conditioning > 0 else list(keyframes)
            for past, output in [*tracked.items(), *keyframes.items()]:
                attended = past in tracked or past in newest or frame - past <= self.reach
                for name in set(output) - set(MEMORY_OUTPUTS if attended else ("object_pointer",)):
                    del output[name]
        for frames in self.state.frames_tracked_per_obj.values():
            frames.clear()  # of use where prompts are added later
        for kept in (self.state.obj_id_to_tracker_score_frame_wise, self.state.suppressed_obj_ids):
            for past in [past for past in kept if past != frame]:
                del kept[past]


def union_of(found: FrameObjects, size: tuple[int, int]) -> Tensor:
    """bool [H, W], the union of the objects that are shown.

    Two objects may claim a pixel; transformers' processor gives it to one of them, which leaves the union as it is.
    """
    shown = [mask for number, mask in found.masks.items() if number not in found.hidden]
    device = shown[0].device if shown else None
    union = torch.zeros(size, dtype=torch.bool, device=device)
    for mask in shown:
        union |= F.interpolate(mask[None].float(), size, mode="bilinear", align_corners=False)[0, 0] > 0
    return union
