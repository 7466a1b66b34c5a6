"""One step of SAM 2 for a batch of objects: see a frame, segment, remember. No state is kept here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from veason.tracking.sam2.attention import MemoryAttention, key_table
from veason.tracking.sam2.loading import store_in
from veason.tracking.sam2.speed import Speed, compile_blocks, compiled
from veason.tracking.sam2.visits import Reach

HOLE_AREA = 8  # places of the low-resolution mask; sam2's default


@dataclass(frozen=True)
class Features:
    """What the network sees on `n` frames.

    Attributes:
        top: [n, C, h, w], the features that are prompted and remembered.
        fine: the mask head's two finer maps [n, C', 4h, 4w] and [n, C'', 2h, 2w]; empty where the model uses none.
        tokens, queries: the memory attention's first look at each frame.
    """

    top: Tensor
    fine: tuple[Tensor, ...]
    tokens: Tensor
    queries: Tensor

    def __getitem__(self, rows: Tensor) -> Features:
        take = lambda x: x.index_select(0, rows)  # noqa: E731
        return Features(take(self.top), tuple(map(take, self.fine)), take(self.tokens), take(self.queries))


def join_features(parts: Iterable[Features], total: int) -> Features:
    """The features of several batches of frames, one after the other, `total` frames in all; holds one batch more than
    these.
    """
    whole: list[Tensor] = []
    start = 0
    for part in parts:
        count, pieces = len(part.top), (part.top, part.tokens, part.queries, *part.fine)
        if count == total:
            return part
        whole = whole or [piece.new_empty(total, *piece.shape[1:]) for piece in pieces]
        for target, piece in zip(whole, pieces, strict=True):
            target[start : start + count] = piece
        start += count
    top, tokens, queries, *fine = whole
    return Features(top, tuple(fine), tokens, queries)


class Network:
    """The steps over a loaded model.

    Args:
        model: sam2's `SAM2Base`.
        dtype: bf16 runs matrix products under autocast, as sam2's users do; fp32 is exact.
    """

    def __init__(self, model: Any, dtype: torch.dtype, speed: Speed):
        if not model.directly_add_no_mem_embed or model.num_maskmem < 1:
            raise ValueError(
                "a SAM 2 model needs directly_add_no_mem_embed: true and a num_maskmem above 0, as every released one "
                "has"
            )
        self.model, self.dtype, self.speed = model, dtype, speed
        self.device = next(model.parameters()).device
        self.size, self.side = model.image_size, model.sam_image_embedding_size
        self.room = max(1, (1024 // self.size) ** 2)  # how many of its frames take the place of one of 1024 pixels
        if dtype != torch.float32:
            store_in(model, dtype)
        pointers = model.max_obj_ptrs_in_encoder if model.use_obj_ptrs_in_encoder else 0
        self.reach = Reach(model.num_maskmem, model.memory_temporal_stride_for_eval, pointers)
        self.fills_holes = self.device.type == "cuda" and find_spec("sam2._C") is not None
        position = self._spatial(model.image_encoder.neck.position_encoding, model.hidden_dim)
        self.memory_position = self._spatial(model.memory_encoder.position_encoding, model.mem_dim)
        self.attention = MemoryAttention(model.memory_attention, position)
        self.look, self.recall, self.segment, self.remember = (
            self.attention.look,
            self.attention.recall,
            self._segment,
            self._remember,
        )
        if speed.compile_encoder:
            compile_blocks(model.image_encoder.trunk.blocks)
        if speed.compile_steps:
            self.look, self.recall = compiled(self.look), compiled(self.recall)
            self.segment, self.remember = compiled(self.segment), compiled(self.remember)

    def _spatial(self, encoding: Any, channels: int) -> Tensor:
        """sam2's sine encoding of a map's places, [L, C]."""
        return encoding(torch.empty(1, channels, self.side, self.side, device=self.device))[0].flatten(1).T.contiguous()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32)

    def fill(self, logits: Tensor) -> Tensor:
        """Close small holes in masks, where sam2 was built with the CUDA kernel for it; elsewhere its own predictor
        leaves them too.
        """
        if not self.fills_holes:
            return logits
        from sam2.utils.misc import fill_holes_in_mask_scores

        return fill_holes_in_mask_scores(logits, HOLE_AREA)

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Features:
        """Encode frames, float32 [n, 3, S, S]."""
        with self.autocast():
            levels = self.model.forward_image(pixels)["backbone_fpn"]
            fine = tuple(levels[-3:-1]) if self.model.use_high_res_features_in_sam else ()
            tokens, queries = self.look(levels[-1].flatten(2).transpose(1, 2))
        return Features(levels[-1], fine, tokens, queries)

    def prompt(self, seen: Features, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Segment from boxes [N, 4] in pixels of the network's frame -> (mask logits [N, 1, 4h, 4w], pointers [N, C],
        scores [N, 1]).
        """
        features = seen.top + self.model.no_mem_embed.view(1, -1, 1, 1)
        labels = to_device([[2, 3]] * len(boxes), self.device).int()  # sam2's labels of a box's corners
        return self.segment(features, seen.fine, boxes.view(-1, 2, 2), labels)

    def track(self, seen: Features, memory: Tensor, where: Tensor, maps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Segment from memories [N, K, M], the first `maps` maps of them, the rest object pointers. Returns what
        `prompt` returns.
        """
        keys = key_table(self.attention.table, maps, memory.shape[1] - maps * self.side**2)
        for tensor in (memory, where):  # like the number of objects, the number of memories must not be compiled in
            torch._dynamo.maybe_mark_dynamic(tensor, 1)
        tokens = self.recall(seen.tokens, seen.queries, memory, where, keys)
        return self.segment(tokens.transpose(1, 2).unflatten(2, (self.side, self.side)), seen.fine, None, None)

    def _segment(self, features: Tensor, fine: Sequence[Tensor], points: Tensor | None, labels: Tensor | None):
        model = self.model
        prompt = None if points is None else {"point_coords": points, "point_labels": labels}
        several = model._use_multimask(points is not None, prompt)
        outputs = model._forward_sam_heads(features, prompt, None, list(fine) or None, several)
        return outputs[3], outputs[5], outputs[6]  # sam2: low_res_masks, obj_ptr, object_score_logits

    def _remember(self, top: Tensor, logits: Tensor, scores: Tensor, prompted: bool) -> Tensor:
        """Encode masks [N, 1, 4h, 4w] on their frames [N, C, h, w] into memories [N, L, M], kept in bf16 as sam2 keeps
        them.
        """
        masks = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
        flat = [top.flatten(2).permute(2, 0, 1)]
        memory, _ = self.model._encode_new_memory(flat, [top.shape[2:]], masks, scores, prompted)
        return memory.flatten(2).transpose(1, 2).to(torch.bfloat16)


def to_device(values: list, device: torch.device) -> Tensor:
    """A small list as a tensor, without making the host wait for the device."""
    return torch.tensor(values).to(device, non_blocking=True)
