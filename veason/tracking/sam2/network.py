"""The steps of SAM 2 for a batch of objects: encode images, attend to memory, decode masks, encode memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from veason.tracking.sam2.attention import MemoryAttention, memory_rotary_table
from veason.tracking.sam2.compilation import CompileOptions, compile_blocks, compile_dynamic
from veason.tracking.sam2.loading import cast_matrix_weights
from veason.tracking.sam2.preprocessing import SAM2_PIXELS, PixelFormat
from veason.tracking.sam2.propagation import MemoryConfig

HOLE_AREA = 8  # pixels of the low-resolution mask; sam2's default


@dataclass(frozen=True)
class ImageFeatures:
    """The image encoder's output for `n` frames.

    Attributes:
        embedding: [n, C, h, w], what is prompted and encoded into memory.
        high_res: the mask decoder's finer maps [n, C', 4h, 4w] and [n, C'', 2h, 2w]; empty where the model has none.
        tokens, queries: `MemoryAttention.self_attend` of each frame.
    """

    embedding: Tensor
    high_res: tuple[Tensor, ...]
    tokens: Tensor
    queries: Tensor

    def __getitem__(self, rows: Tensor) -> ImageFeatures:
        take = lambda x: x.index_select(0, rows)  # noqa: E731
        return ImageFeatures(
            take(self.embedding), tuple(map(take, self.high_res)), take(self.tokens), take(self.queries)
        )


def concat_features(batches: Iterable[ImageFeatures], total: int) -> ImageFeatures:
    """The features of several batches of frames, `total` frames in all; holds one batch more than the result."""
    whole: list[Tensor] = []
    start = 0
    for batch in batches:
        count, pieces = len(batch.embedding), (batch.embedding, batch.tokens, batch.queries, *batch.high_res)
        if count == total:
            return batch
        whole = whole or [piece.new_empty(total, *piece.shape[1:]) for piece in pieces]
        for target, piece in zip(whole, pieces, strict=True):
            target[start : start + count] = piece
        start += count
    embedding, tokens, queries, *high_res = whole
    return ImageFeatures(embedding, tuple(high_res), tokens, queries)


class Sam2Network:
    """The steps of a loaded model.

    Args:
        model: sam2's `SAM2Base`.
        dtype: bf16 runs matrix products under autocast, as sam2's users do; fp32 is exact.
        compile_options: what runs under torch.compile.
        pixels: how the model's frames are resized and normalized.
    """

    def __init__(
        self, model: Any, dtype: torch.dtype, compile_options: CompileOptions, pixels: PixelFormat = SAM2_PIXELS
    ):
        if not model.directly_add_no_mem_embed or model.num_maskmem < 1:
            raise ValueError(
                "a SAM 2 model needs directly_add_no_mem_embed: true and a num_maskmem above 0, as every released one "
                "has"
            )
        self.model, self.dtype, self.pixels = model, dtype, pixels
        self.compiled = compile_options.image_encoder or compile_options.steps
        self.device = next(model.parameters()).device
        self.size, self.side = model.image_size, model.sam_image_embedding_size
        # SAM 3 resizes masks to the frame and then to 16 pixels a token; in SAM 2 both are the same
        self.mask_sides = list(dict.fromkeys((self.size, 16 * self.side)))
        self.batch_scale = max(1, (1024 // self.size) ** 2)  # its frames that cost as much as one of 1024 pixels
        if dtype != torch.float32:
            cast_matrix_weights(model, dtype)
        pointers = model.max_obj_ptrs_in_encoder if model.use_obj_ptrs_in_encoder else 0
        self.memory_config = MemoryConfig(
            model.num_maskmem,
            model.memory_temporal_stride_for_eval,
            pointers,
            model.max_cond_frames_in_attn,
            model.only_obj_ptrs_in_the_past_for_eval,
            model.use_signed_tpos_enc_to_obj_ptrs,
        )
        self.fills_holes = self.device.type == "cuda" and find_spec("sam2._C") is not None
        position = self._spatial_encoding(model.image_encoder.neck.position_encoding, model.hidden_dim)
        self.memory_position = self._spatial_encoding(model.memory_encoder.position_encoding, model.mem_dim)
        self.attention = MemoryAttention(model.memory_attention, position)
        self.self_attend, self.attend_memory = self.attention.self_attend, self.attention.attend_memory
        self.decode_masks, self.encode_memory = self._decode_masks, self._encode_memory
        if compile_options.image_encoder:
            compile_blocks(model.image_encoder.trunk.blocks)
        if compile_options.steps:
            self.self_attend, self.attend_memory = (
                compile_dynamic(self.self_attend),
                compile_dynamic(self.attend_memory),
            )
            self.decode_masks, self.encode_memory = (
                compile_dynamic(self.decode_masks),
                compile_dynamic(self.encode_memory),
            )

    def _spatial_encoding(self, encoding: Any, channels: int) -> Tensor:
        """sam2's sine encoding of a map's positions, [L, C]."""
        return encoding(torch.empty(1, channels, self.side, self.side, device=self.device))[0].flatten(1).T.contiguous()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32)

    def fill_holes(self, logits: Tensor) -> Tensor:
        """Close small holes in masks where sam2 has its CUDA kernel; elsewhere its own predictor leaves them too."""
        if not self.fills_holes:
            return logits
        from sam2.utils.misc import fill_holes_in_mask_scores

        return fill_holes_in_mask_scores(logits, HOLE_AREA)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """Encode frames, float32 [n, 3, S, S]."""
        with self.autocast():
            levels = self.model.forward_image(pixels)["backbone_fpn"]
            high_res = tuple(levels[-3:-1]) if self.model.use_high_res_features_in_sam else ()
            tokens, queries = self.self_attend(levels[-1].flatten(2).transpose(1, 2))
        return ImageFeatures(levels[-1], high_res, tokens, queries)

    def segment_prompts(self, features: ImageFeatures, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Segment objects from what is given of them on their keyframes.

        Args:
            points: float32 [N, Q, 2] in pixels of the network's frame.
            labels: int32 [N, Q]: 0 and 1 of points beside and on the object, 2 and 3 of a box's corners.

        Returns:
            Mask logits [N, 1, 4h, 4w], object pointers [N, C], object scores [N, 1].
        """
        embedding = features.embedding + self.model.no_mem_embed.view(1, -1, 1, 1)
        return self.decode_masks(embedding, features.high_res, points, labels)

    def segment_from_memory(
        self, features: ImageFeatures, memory: Tensor, memory_position: Tensor, maps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Segment objects from their memories; returns what `segment_prompts` returns.

        Args:
            memory, memory_position: [N, K, M]; the first tokens are of `maps` memory maps, the rest object pointers.
        """
        table = memory_rotary_table(self.attention.table, maps, memory.shape[1] - maps * self.side**2)
        for tensor in (memory, memory_position):  # the number of memories, like that of objects, changes per call
            torch._dynamo.maybe_mark_dynamic(tensor, 1)
        tokens = self.attend_memory(features.tokens, features.queries, memory, memory_position, table)
        embedding = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.decode_masks(embedding, features.high_res, None, None)

    def _decode_masks(
        self, embedding: Tensor, high_res: Sequence[Tensor], points: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        prompt = None if points is None else {"point_coords": points, "point_labels": labels}
        multimask = model._use_multimask(points is not None, prompt)
        outputs = model._forward_sam_heads(embedding, prompt, None, list(high_res) or None, multimask)
        return outputs[3], outputs[5], outputs[6]  # sam2: low_res_masks, obj_ptr, object_score_logits

    def _encode_memory(self, embedding: Tensor, logits: Tensor, scores: Tensor, prompted: bool) -> Tensor:
        """Encode masks [N, 1, 4h, 4w] on their frames [N, C, h, w] into memories [N, L, M], in bf16 as sam2 does."""
        masks = logits
        for side in self.mask_sides:
            masks = F.interpolate(masks, (side, side), mode="bilinear", align_corners=False)
        flat = [embedding.flatten(2).permute(2, 0, 1)]
        memory, _ = self.model._encode_new_memory(flat, [embedding.shape[2:]], masks, scores, prompted)
        return memory.flatten(2).transpose(1, 2).to(torch.bfloat16)


def to_device(values: Sequence[Any], device: torch.device) -> Tensor:
    """A small list as a tensor, without making the host wait for the device."""
    return torch.tensor(values).to(device, non_blocking=True)
