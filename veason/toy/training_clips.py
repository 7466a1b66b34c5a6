"""Random training clips of the toy tracker, rendered in batches on the training device.

Shapes, colours, textures and backgrounds are those of the toy world. Trajectories are more varied than a scene's: any
direction and turn, and jumps as large as between the sampled frames of a prompt. In half of the clips a large object
occludes another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from veason.toy.facts import MIN_VISIBLE_PIXELS
from veason.toy.render import SceneBatch, background_parameters, render
from veason.toy.scene import COLOURS, HEIGHT, OCCLUDERS, SHAPES, TEXTURES, WIDTH

STRIDES = (1, 1, 1, 1, 2, 2, 3, 4, 5)  # video frames between two frames of a clip
MAX_SPEED = 16.0  # pixels per frame


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames with M targets each.

    Attributes:
        frames: float [B, T, 3, S, S], 0 to 1.
        masks: float [B, M, T, S, S], coverage of each pixel by the visible target, 0 to 1.
        present: bool [B, M, T], whether the target is visible.
        boxes: float [B, M, 4], xyxy in pixels of S: the extreme pixels of the target in the prompted frame.
        usable: bool [B, M]; False where a clip had too few visible objects to prompt.
    """

    frames: Tensor
    masks: Tensor
    present: Tensor
    boxes: Tensor
    usable: Tensor


def random_clips(
    clips: int, frames: int, prompted: int, side: int, generator: torch.Generator, shapes: int = 5, targets: int = 2
) -> ClipBatch:
    """Renders clips of `side` x `side` pixels on the generator's device, targets visible in frame `prompted`."""
    batch = _random_batch(clips, frames, prompted, shapes, generator)
    pictures, visible, amodal = render(batch, generator=generator)
    pictures = _resize(_subsample_chroma(pictures), side, "bicubic").clamp_(0, 1)
    areas = visible[:, prompted].sum((-1, -2))
    clear = (areas > 60) & (areas > 0.4 * amodal[:, prompted].sum((-1, -2)))
    order = torch.rand(clear.shape, generator=generator, device=clear.device) + clear.float()
    chosen = order.topk(targets, dim=1).indices  # clearly visible objects first, in random order
    visible = visible.transpose(1, 2)[torch.arange(clips, device=chosen.device)[:, None], chosen]  # [B, M, T, H, W]
    present = visible.sum((-1, -2)) >= MIN_VISIBLE_PIXELS
    usable = clear.gather(1, chosen)
    return ClipBatch(
        pictures, _resize(visible.float(), side, "bilinear"), present, _boxes(visible[:, :, prompted], side), usable
    )


def _random_batch(clips: int, frames: int, prompted: int, shapes: int, generator: torch.Generator) -> SceneBatch:
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    def pick(count: int, *shape: int) -> Tensor:
        return torch.randint(count, shape, generator=generator, device=device)

    size = torch.tensor([WIDTH, HEIGHT], dtype=torch.float32, device=device)
    position = (0.08 + 0.84 * uniform(clips, shapes, 2)) * size
    centre = position.unsqueeze(1) + _displacements(clips, frames, prompted, shapes, uniform, pick)
    radius = 11.0 + 10.0 * uniform(clips, shapes)
    kind = pick(len(SHAPES), clips, shapes)
    colour = torch.rand(clips, len(COLOURS), generator=generator, device=device).argsort(1)[:, :shapes]
    lookalikes = uniform(clips) < 0.35  # two objects of one colour, or of one shape
    colour[:, 1] = torch.where(lookalikes, colour[:, 2], colour[:, 1])
    kind[:, 1] = torch.where(lookalikes, (kind[:, 2] + 1 + pick(len(SHAPES) - 1, clips)) % len(SHAPES), kind[:, 1])
    kind[:, 3] = torch.where(uniform(clips) < 0.35, kind[:, 4], kind[:, 3])

    # in half of the clips the front object is large and static, at the position of another one at some time
    has_occluder = uniform(clips) < 0.5
    occluded, when = 1 + pick(shapes - 1, clips), pick(frames, clips)
    there = centre[torch.arange(clips, device=device), when, occluded] + 8 * (uniform(clips, 2) - 0.5)
    centre[:, :, 0] = torch.where(has_occluder[:, None, None], there[:, None], centre[:, :, 0])
    radius[:, 0] = torch.where(has_occluder, 20.0 + 7.0 * uniform(clips), radius[:, 0])
    solid = torch.tensor([SHAPES.index(name) for name in OCCLUDERS], device=device)
    kind[:, 0] = torch.where(has_occluder, solid[pick(len(OCCLUDERS), clips)], kind[:, 0])

    table = torch.tensor(list(COLOURS.values()), device=device)
    inks = (table[colour] + 0.06 * (uniform(clips, shapes, 3) - 0.5)).clamp(0, 1)
    background, waves, noise_std = background_parameters(clips, generator, device)
    return SceneBatch(centre, radius, kind, pick(len(TEXTURES), clips, shapes), inks, background, waves, noise_std)


def _displacements(clips: int, frames: int, prompted: int, shapes: int, uniform, pick) -> Tensor:
    """Displacement of each object from its position in the prompted frame, [B, T, K, 2].

    The velocity is constant, or changes once: to zero, to its opposite, or to another one.
    """
    first, second = (_velocities(clips, shapes, uniform) for _ in range(2))
    change = uniform(clips, shapes, 1)  # keep the velocity, stop, reverse, or draw another one
    second = torch.where(
        change < 0.5,
        first,
        torch.where(change < 0.65, torch.zeros_like(first), torch.where(change < 0.75, -first, second)),
    )
    turn = pick(max(frames, 1), clips, 1, shapes, 1)
    steps = torch.arange(frames, device=turn.device).view(1, -1, 1, 1)
    velocity = torch.where(steps < turn, first.unsqueeze(1), second.unsqueeze(1))  # from frame t to t + 1
    stride = torch.tensor(STRIDES, device=turn.device)[pick(len(STRIDES), clips)].view(-1, 1, 1, 1)
    travelled = F.pad((velocity * stride).cumsum(1), (0, 0, 0, 0, 1, 0))[:, :frames]
    return travelled - travelled[:, prompted : prompted + 1]


def _velocities(clips: int, shapes: int, uniform) -> Tensor:
    speed = MAX_SPEED * uniform(clips, shapes) ** 1.5 * (uniform(clips, shapes) < 0.85)
    angle = 2 * math.pi * uniform(clips, shapes)
    return torch.stack([speed * angle.cos(), speed * angle.sin()], -1)


def _subsample_chroma(frames: Tensor) -> Tensor:
    """JPEG-like 4:2:0 chroma subsampling: everything but the luma is averaged over 2 x 2 pixels."""
    flat = frames.flatten(0, 1)
    brightness = (flat * flat.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    chroma = F.interpolate(F.avg_pool2d(flat - brightness, 2), scale_factor=2.0)
    return (brightness + chroma).clamp_(0, 1).view_as(frames)


def _resize(values: Tensor, side: int, mode: str) -> Tensor:
    """Resizes [..., H, W] to side x side like the tracker's resize, as two matrix products."""
    rows, columns = (_resize_matrix(length, side, mode, values.device) for length in values.shape[-2:])
    return rows @ values @ columns.T


@lru_cache(maxsize=16)
def _resize_matrix(length: int, side: int, mode: str, device: torch.device) -> Tensor:
    """The resize of one axis as a matrix, float [side, length]."""
    units = torch.eye(length).view(1, 1, length, length)
    return F.interpolate(units, size=(side, length), mode=mode, antialias=True)[0, 0].to(device)


def _boxes(masks: Tensor, side: int) -> Tensor:
    """Boxes [B, M, 4], xyxy in pixels of side x side, of masks bool [B, M, H, W]; zeros for an empty mask."""
    height, width = masks.shape[-2:]
    ends = []
    for seen, length in ((masks.any(-2), width), (masks.any(-1), height)):
        index = torch.arange(length, device=masks.device)
        scale = side / length
        ends.append((torch.where(seen, index, length).amin(-1) * scale, torch.where(seen, index, -1).amax(-1) * scale))
    boxes = torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], -1)
    return torch.where(masks.flatten(2).any(-1, keepdim=True), boxes, torch.zeros_like(boxes))
