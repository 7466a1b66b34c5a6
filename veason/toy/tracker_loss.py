"""One clip through SAM 2 as in tracking, with gradients, and the loss of what it drew.

The clip goes through `SAM2Base.track_step`: the prompted frame, then forward to the end, then backward to the start,
each frame with the memories and pointers of those before. The loss is taken where SAM 2 draws: on the raw logits of the
mask decoder, before a frame that is thought empty is blanked, since no gradient passes through the blanking.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from veason.toy.clips import Clips

PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BOX_CORNERS = (2, 3)  # SAM's point labels of a box


@dataclass(frozen=True)
class Drawn:
    """What the mask decoder gave for one frame of N tracks.

    Attributes:
        logits: [N, 4, h, w] of its four mask tokens.
        quality: [N, 4], their estimated IoU.
        presence: [N], the logit of the object being in view.
    """

    logits: Tensor
    quality: Tensor
    presence: Tensor


class DecoderTap:
    """Keeps what the mask decoder gives, all four masks of it; SAM 2 hands on the first alone."""

    def __init__(self, model: SAM2Base) -> None:
        decoder = model.sam_mask_decoder
        self._last: Drawn | None = None
        predict = decoder.predict_masks

        def predict_and_keep(*args, **kwargs):
            masks, quality, tokens, presence = predict(*args, **kwargs)
            self._last = Drawn(masks.float(), quality.float(), presence.float()[:, 0])
            return masks, quality, tokens, presence

        decoder.predict_masks = predict_and_keep

    def take(self) -> Drawn:
        """What was drawn last, once."""
        drawn, self._last = self._last, None
        if drawn is None:
            raise RuntimeError("the mask decoder has drawn nothing since")
        return drawn


def track_clips(
    model: SAM2Base, tap: DecoderTap, frames: Tensor, boxes: Tensor, prompted: int, length: int
) -> list[Drawn]:
    """Tracks M objects in each of B clips from boxes on one frame.

    Args:
        frames: float [B, T, 3, S, S], 0 to 1.
        boxes: float [B, M, 4], xyxy in pixels of S.
        prompted: the frame of the boxes.
        length: frames of the video that the clip is taken to be part of, T at least; SAM 2 scales pointer distances by
            it.

    Returns:
        Per frame what was drawn, with N = B * M tracks, clip by clip.
    """
    clips, total = frames.shape[:2]
    per_clip = boxes.shape[1]
    mean, std = (frames.new_tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    encoded = model.forward_image((frames.flatten(0, 1) - mean) / std)
    _, features, positions, sizes = model._prepare_backbone_features(encoded)
    clip_of_track = torch.arange(clips, device=frames.device).repeat_interleave(per_clip)
    corners = boxes.reshape(-1, 2, 2)
    labels = torch.tensor(BOX_CORNERS, dtype=torch.int32, device=frames.device).expand(len(corners), 2)
    outputs: dict[str, dict] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    drawn: dict[int, Drawn] = {}
    order = [prompted, *range(prompted + 1, total), *range(prompted - 1, -1, -1)]
    for time in order:
        rows = clip_of_track * total + time  # rows of the encoded frames
        is_prompted = time == prompted
        out = model.track_step(
            frame_idx=time,
            is_init_cond_frame=is_prompted,
            current_vision_feats=[feature[:, rows] for feature in features],
            current_vision_pos_embeds=[position[:, rows] for position in positions],
            feat_sizes=sizes,
            point_inputs={"point_coords": corners, "point_labels": labels} if is_prompted else None,
            mask_inputs=None,
            output_dict=outputs,
            num_frames=length,
            track_in_reverse=time < prompted,
            run_mem_encoder=total > 1,
        )
        outputs["cond_frame_outputs" if is_prompted else "non_cond_frame_outputs"][time] = out
        drawn[time] = tap.take()
    return [drawn[time] for time in range(total)]


@dataclass
class Loss:
    """The loss to minimise, and for the log the mean IoU of the first mask on the prompted frame and on the others (NaN
    without any).
    """

    total: Tensor
    prompted_iou: Tensor
    other_iou: Tensor


def clip_loss(drawn: list[Drawn], clips: Clips, prompted: int, balance: float, token: int) -> Loss:
    """Cross-entropy plus dice over the frames in which the target is in view, and whether it is in view over all.

    Args:
        balance: 1 gives the target and its surroundings the same weight, without which training ends in empty masks; 0
            counts every pixel alike, which puts the edge where it is.
        token: 1 to 3, which of the other mask tokens is trained beside the first: SAM 2's predictor falls back to them.
    """
    picked = [0, token]
    logits = torch.stack([frame.logits[:, picked] for frame in drawn], 1)  # [N, T, 2, h, w]
    quality = torch.stack([frame.quality[:, picked] for frame in drawn], 1)
    presence = torch.stack([frame.presence for frame in drawn], 1)
    truth = clips.masks.flatten(0, 1).unsqueeze(2)  # [N, T, 1, S, S]
    usable = clips.usable.flatten()[:, None]
    in_view = clips.present.flatten(0, 1) & usable  # [N, T]

    tracks, times, tokens = logits.shape[:3]
    logits = F.interpolate(logits.flatten(0, 1), size=truth.shape[-2:], mode="bilinear", align_corners=False)
    logits = logits.view(tracks, times, tokens, *truth.shape[-2:])
    masks = _balanced_cross_entropy(logits, truth, balance) + _dice(logits, truth)
    iou = _iou(logits, truth)
    estimate = (quality - iou).square()
    weight = in_view.float() / in_view.sum().clamp(min=1)
    view = F.binary_cross_entropy_with_logits(presence, clips.present.flatten(0, 1).float(), reduction="none")
    view = (view * usable).sum() / (usable.sum() * times).clamp(min=1)
    total = ((masks + 0.2 * estimate).mean(2) * weight).sum() + 0.5 * view

    others = torch.ones(times, dtype=torch.bool, device=logits.device)
    others[prompted] = False
    first = iou[:, :, 0]
    return Loss(total, first[:, prompted][in_view[:, prompted]].mean(), first[:, others][in_view[:, others]].mean())


def _balanced_cross_entropy(logits: Tensor, truth: Tensor, balance: float) -> Tensor:
    """Mean over pixels [N, T, tokens]; the target's pixels weigh (others / target's) ** balance as much as the others."""
    loss = F.binary_cross_entropy_with_logits(logits, truth.expand_as(logits), reduction="none")
    share = truth.mean((-1, -2), keepdim=True).clamp(1e-3, 1 - 1e-3)
    weight = ((1 - share) / share) ** balance
    weights = weight * truth + (1 - truth)
    # of each target's loss a share that does not depend on its size: plain means would forget small targets
    return (loss * weights).sum((-1, -2)) / (2 * weight * truth.sum((-1, -2), keepdim=True)).clamp(min=1)[..., 0, 0]


def _dice(logits: Tensor, truth: Tensor) -> Tensor:
    share = logits.sigmoid()
    both = (share * truth).sum((-1, -2))
    return 1 - (2 * both + 1) / (share.sum((-1, -2)) + truth.sum((-1, -2)) + 1)


@torch.no_grad()
def _iou(logits: Tensor, truth: Tensor) -> Tensor:
    """[N, T, tokens]; 1 where both are empty."""
    drawn, target = logits > 0, truth > 0.5
    union = (drawn | target).sum((-1, -2))
    return torch.where(union > 0, (drawn & target).sum((-1, -2)) / union.clamp(min=1), 1.0)
