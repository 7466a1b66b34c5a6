"""Differentiable tracking of a clip with SAM 2, and the training loss of the toy tracker.

A clip goes through `SAM2Base.track_step`: the prompted frame, then forward to the end, then backward to the start, each
frame with the memories and object pointers of the previous ones. The loss uses the raw logits of the mask decoder:
SAM 2 replaces the masks of frames with a negative object score by a constant, which has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from veason.toy.training_clips import ClipBatch
from veason.tracking.sam2.preprocessing import MEAN, STD

BOX_CORNER_LABELS = (2, 3)  # SAM's point labels of a box's corners


@dataclass(frozen=True)
class DecoderOutput:
    """The mask decoder's output for one frame of N tracks.

    Attributes:
        mask_logits: [N, 4, h, w], of its four mask tokens.
        iou: [N, 4], their predicted IoU.
        object_logit: [N], the logit of the object being visible.
    """

    mask_logits: Tensor
    iou: Tensor
    object_logit: Tensor


class DecoderHook:
    """Records the mask decoder's output with all four masks; `track_step` returns the first one only."""

    def __init__(self, model: SAM2Base) -> None:
        decoder = model.sam_mask_decoder
        self._last: DecoderOutput | None = None
        predict = decoder.predict_masks

        def predict_and_record(*args, **kwargs):
            masks, iou, tokens, object_logit = predict(*args, **kwargs)
            self._last = DecoderOutput(masks.float(), iou.float(), object_logit.float()[:, 0])
            return masks, iou, tokens, object_logit

        decoder.predict_masks = predict_and_record

    def pop(self) -> DecoderOutput:
        """The last output, once."""
        output, self._last = self._last, None
        if output is None:
            raise RuntimeError("the mask decoder has not run")
        return output


def track_clips(
    model: SAM2Base, hook: DecoderHook, frames: Tensor, boxes: Tensor, prompted: int, length: int
) -> list[DecoderOutput]:
    """Tracks M objects in each of B clips from boxes on one frame.

    Args:
        frames: float [B, T, 3, S, S], 0 to 1.
        boxes: float [B, M, 4], xyxy in pixels of S.
        prompted: index of the frame of the boxes.
        length: assumed frames of the video, at least T; SAM 2 scales temporal distances of pointers by it.

    Returns:
        Per frame the decoder's output, with N = B * M tracks, clip by clip.
    """
    clips, total = frames.shape[:2]
    per_clip = boxes.shape[1]
    mean, std = (frames.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    encoded = model.forward_image((frames.flatten(0, 1) - mean) / std)
    _, features, positions, sizes = model._prepare_backbone_features(encoded)
    clip_of_track = torch.arange(clips, device=frames.device).repeat_interleave(per_clip)
    corners = boxes.reshape(-1, 2, 2)
    labels = torch.tensor(BOX_CORNER_LABELS, dtype=torch.int32, device=frames.device).expand(len(corners), 2)
    outputs: dict[str, dict] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    decoded: dict[int, DecoderOutput] = {}
    order = [prompted, *range(prompted + 1, total), *range(prompted - 1, -1, -1)]
    for index in order:
        rows = clip_of_track * total + index  # of the encoded frames
        is_prompted = index == prompted
        out = model.track_step(
            frame_idx=index,
            is_init_cond_frame=is_prompted,
            current_vision_feats=[feature[:, rows] for feature in features],
            current_vision_pos_embeds=[position[:, rows] for position in positions],
            feat_sizes=sizes,
            point_inputs={"point_coords": corners, "point_labels": labels} if is_prompted else None,
            mask_inputs=None,
            output_dict=outputs,
            num_frames=length,
            track_in_reverse=index < prompted,
            run_mem_encoder=total > 1,
        )
        outputs["cond_frame_outputs" if is_prompted else "non_cond_frame_outputs"][index] = out
        decoded[index] = hook.pop()
    return [decoded[index] for index in range(total)]


@dataclass
class TrackerLoss:
    """The loss to minimize, and the first mask's mean IoU on the prompted and on the other frames (NaN without any)."""

    total: Tensor
    prompted_iou: Tensor
    other_iou: Tensor


def clip_loss(outputs: list[DecoderOutput], clips: ClipBatch, prompted: int, balance: float, token: int) -> TrackerLoss:
    """Cross-entropy, dice and IoU loss over the frames in which the target is visible, and object loss over all frames.

    Args:
        balance: exponent of the class weights: 1 gives target and background the same weight, without which training
            collapses to empty masks; 0 weighs every pixel alike, which gives exact edges.
        token: 1 to 3, the mask token that is trained beside the first one; SAM 2's predictor falls back to them.
    """
    tokens_used = [0, token]
    logits = torch.stack([output.mask_logits[:, tokens_used] for output in outputs], 1)  # [N, T, 2, h, w]
    predicted_iou = torch.stack([output.iou[:, tokens_used] for output in outputs], 1)
    object_logits = torch.stack([output.object_logit for output in outputs], 1)
    ground_truth = clips.masks.flatten(0, 1).unsqueeze(2)  # [N, T, 1, S, S]
    usable = clips.usable.flatten()[:, None]
    visible = clips.present.flatten(0, 1) & usable  # [N, T]

    tracks, length, tokens = logits.shape[:3]
    logits = F.interpolate(logits.flatten(0, 1), size=ground_truth.shape[-2:], mode="bilinear", align_corners=False)
    logits = logits.view(tracks, length, tokens, *ground_truth.shape[-2:])
    masks = _balanced_cross_entropy(logits, ground_truth, balance) + _dice(logits, ground_truth)
    iou = _iou(logits, ground_truth)
    iou_error = (predicted_iou - iou).square()
    weight = visible.float() / visible.sum().clamp(min=1)
    presence = F.binary_cross_entropy_with_logits(object_logits, clips.present.flatten(0, 1).float(), reduction="none")
    presence = (presence * usable).sum() / (usable.sum() * length).clamp(min=1)
    total = ((masks + 0.2 * iou_error).mean(2) * weight).sum() + 0.5 * presence

    others = torch.ones(length, dtype=torch.bool, device=logits.device)
    others[prompted] = False
    first = iou[:, :, 0]
    return TrackerLoss(
        total, first[:, prompted][visible[:, prompted]].mean(), first[:, others][visible[:, others]].mean()
    )


def _balanced_cross_entropy(logits: Tensor, ground_truth: Tensor, balance: float) -> Tensor:
    """Weighted cross-entropy [N, T, tokens]; target pixels have weight (background area / target area) ** balance."""
    loss = F.binary_cross_entropy_with_logits(logits, ground_truth.expand_as(logits), reduction="none")
    share = ground_truth.mean((-1, -2), keepdim=True).clamp(1e-3, 1 - 1e-3)
    weight = ((1 - share) / share) ** balance
    weights = weight * ground_truth + (1 - ground_truth)
    # normalized by the target's area: a plain mean over pixels would neglect small targets
    return (loss * weights).sum((-1, -2)) / (2 * weight * ground_truth.sum((-1, -2), keepdim=True)).clamp(min=1)[
        ..., 0, 0
    ]


def _dice(logits: Tensor, ground_truth: Tensor) -> Tensor:
    share = logits.sigmoid()
    both = (share * ground_truth).sum((-1, -2))
    return 1 - (2 * both + 1) / (share.sum((-1, -2)) + ground_truth.sum((-1, -2)) + 1)


@torch.no_grad()
def _iou(logits: Tensor, ground_truth: Tensor) -> Tensor:
    """IoU [N, T, tokens]; 1 where both are empty."""
    predicted, target = logits > 0, ground_truth > 0.5
    union = (predicted | target).sum((-1, -2))
    return torch.where(union > 0, (predicted & target).sum((-1, -2)) / union.clamp(min=1), 1.0)
