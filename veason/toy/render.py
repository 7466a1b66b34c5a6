"""Draws toy scenes, many at a time, on the CPU or on a GPU: a textured ground and textured shapes with soft edges.

The same functions draw the JPEG frames of a data set and, at any size and in memory, the clips that the toy tracker is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from veason.toy.scene import COLOURS, HEIGHT, SHAPES, TEXTURES, WIDTH, Scene

GROUND_WAVES = 4


@dataclass(frozen=True)
class SceneBatch:
    """B clips of T frames with K shapes each, as tensors of one device; shape k = 0 is drawn last, over the others.

    Attributes:
        centre: float [B, T, K, 2], x and y in pixels of a 160 x 120 frame.
        radius: float [B, K], pixels.
        kind, texture: int64 [B, K], numbers in SHAPES and TEXTURES.
        colour: float [B, K, 3], 0 to 1.
        ground: float [B, 3], the mean colour of the ground.
        waves: float [B, GROUND_WAVES, 6]: two frequencies (radians per pixel), a phase, and the amplitude in red, green and blue.
        grain: float [B], the strength of the noise that every frame has of its own.
    """

    centre: Tensor
    radius: Tensor
    kind: Tensor
    texture: Tensor
    colour: Tensor
    ground: Tensor
    waves: Tensor
    grain: Tensor


def ground_parameters(count: int, generator: torch.Generator, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Random (ground, waves, grain) of `count` clips: dull colours, slow and fast gratings."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    ground = 0.35 + 0.2 * uniform(count, 1) + 0.12 * (uniform(count, 3) - 0.5)
    angle = 2 * math.pi * uniform(count, GROUND_WAVES)
    length = 8.0 * 8.0 ** uniform(count, GROUND_WAVES)  # pixels, 8 to 64
    frequency = 2 * math.pi / length
    amplitude = 0.05 * (uniform(count, GROUND_WAVES, 1) + 0.6 * (uniform(count, GROUND_WAVES, 3) - 0.5))
    phase = 2 * math.pi * uniform(count, GROUND_WAVES)
    waves = torch.cat([torch.stack([frequency * angle.cos(), frequency * angle.sin(), phase], -1), amplitude], -1)
    return ground, waves, 0.01 + 0.03 * uniform(count)


def scene_batch(scenes: Sequence[Scene], device: torch.device | str = "cpu") -> tuple[SceneBatch, list[list[int]]]:
    """Scenes with equal numbers of frames and of shapes as one batch, and for each the scene's own number of the k-th drawn shape."""
    order = [np.argsort([shape.depth for shape in scene.shapes], kind="stable").tolist() for scene in scenes]
    shapes = [[scene.shapes[k] for k in ks] for scene, ks in zip(scenes, order)]
    grounds = []
    for scene in scenes:
        grounds.append(ground_parameters(1, torch.Generator().manual_seed(scene.ground_seed)))
    ground, waves, grain = (torch.cat(parts).to(device) for parts in zip(*grounds))
    return SceneBatch(
        centre=torch.tensor([[s.path for s in row] for row in shapes], device=device).transpose(1, 2).contiguous(),
        radius=torch.tensor([[s.radius for s in row] for row in shapes], device=device),
        kind=torch.tensor([[SHAPES.index(s.shape) for s in row] for row in shapes], device=device),
        texture=torch.tensor([[TEXTURES.index(s.texture) for s in row] for row in shapes], device=device),
        colour=torch.tensor([[COLOURS[s.colour] for s in row] for row in shapes], device=device),
        ground=ground,
        waves=waves,
        grain=grain,
    ), order


def render(
    batch: SceneBatch, height: int = HEIGHT, width: int = WIDTH, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws every frame; other sizes than 160 x 120 stretch the picture.

    Args:
        generator: of the batch's device, for the grain.

    Returns:
        frames float [B, T, 3, H, W] in 0..1; visible bool [B, T, K, H, W], the pixels of each shape that no nearer one covers;
        whole bool [B, T, K, H, W], its pixels in the frame as if nothing covered it.
    """
    frames, covers = paint(batch, height, width, generator)
    return frames, *_masks(covers)


def paint(
    batch: SceneBatch, height: int = HEIGHT, width: int = WIDTH, generator: torch.Generator | None = None
) -> tuple[Tensor, list[Tensor]]:
    """`frames` of `render`, and how much of each pixel each shape would cover, K times [B, T, H, W]."""
    y, x = _pixels(batch, height, width)
    times, count = batch.centre.shape[1:3]
    frames = _draw_ground(batch, x, y).unsqueeze(1).expand(-1, times, -1, -1, -1).clone()
    covers: list[Tensor] = []
    for k in reversed(range(count)):  # from the farthest to the nearest
        u, v = _across(batch, k, x, y)
        covers.insert(0, _cover(batch, k, u, v))
        frames += covers[0].unsqueeze(2) * (_colour(batch, k, u, v) - frames)
    noise = torch.randn(frames.shape, generator=generator, device=frames.device)
    return (frames + batch.grain.view(-1, 1, 1, 1, 1) * noise).clamp_(0, 1), covers


def to_pixels(frames: Tensor) -> np.ndarray:
    """float [T, 3, H, W] in 0..1 as uint8 [T, H, W, 3]."""
    return (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def cover(batch: SceneBatch, height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """`visible` and `whole` of `render`, without the pictures."""
    y, x = _pixels(batch, height, width)
    return _masks([_cover(batch, k, *_across(batch, k, x, y)) for k in range(batch.centre.shape[2])])


def _masks(covers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Visible and whole, bool [B, T, K, H, W], of how much of each pixel each shape covers."""
    whole = torch.stack([shape > 0.5 for shape in covers], 2)
    nearer = whole.cumsum(2, dtype=torch.uint8) - whole.to(torch.uint8)
    return whole & (nearer == 0), whole


def _pixels(batch: SceneBatch, height: int, width: int) -> tuple[Tensor, ...]:
    """y and x of the pixels, float [H, W] each."""
    device = batch.centre.device
    return torch.meshgrid(_pixel_centres(height, HEIGHT, device), _pixel_centres(width, WIDTH, device), indexing="ij")


def _pixel_centres(count: int, length: int, device: torch.device) -> Tensor:
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (length / count)


def _draw_ground(batch: SceneBatch, x: Tensor, y: Tensor) -> Tensor:
    """float [B, 3, H, W]."""
    fx, fy, phase = (batch.waves[:, :, i, None, None] for i in range(3))
    waves = torch.sin(fx * x + fy * y + phase)  # [B, waves, H, W]
    return batch.ground[:, :, None, None] + torch.einsum("bnhw,bnc->bchw", waves, batch.waves[:, :, 3:])


def _across(batch: SceneBatch, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel lies in shape k, [B, T, H, W] each: -1 to 1 across it."""
    radius = batch.radius[:, k, None, None, None]
    return (x - batch.centre[:, :, k, 0, None, None]) / radius, (y - batch.centre[:, :, k, 1, None, None]) / radius


def _cover(batch: SceneBatch, k: int, u: Tensor, v: Tensor) -> Tensor:
    """How much of each pixel shape k covers, [B, T, H, W]."""
    inside = torch.empty_like(u)
    for number, name in enumerate(SHAPES):
        rows = (batch.kind[:, k] == number).nonzero().flatten()
        if len(rows):
            inside[rows] = _outline(name, u[rows], v[rows])
    return (0.5 - inside * batch.radius[:, k, None, None, None]).clamp_(0, 1)


def _colour(batch: SceneBatch, k: int, u: Tensor, v: Tensor) -> Tensor:
    """The colour of shape k, [B, T, 3, H, W]."""
    light = torch.empty_like(u)
    for number, name in enumerate(TEXTURES):
        rows = (batch.texture[:, k] == number).nonzero().flatten()
        if len(rows):
            light[rows] = _light(name, u[rows], v[rows])
    return batch.colour[:, k, None, :, None, None] * light.unsqueeze(2)


def _outline(name: str, u: Tensor, v: Tensor) -> Tensor:
    """About the distance to the outline in radii, negative inside; v points down."""
    if name == "circle":
        return torch.hypot(u, v) - 1.0
    if name == "ring":
        return (torch.hypot(u, v) - 0.68).abs() - 0.32
    if name == "star":
        turn = torch.atan2(u, -v) * (5 / (2 * math.pi))
        spike = 1 - 2 * (turn - turn.round()).abs()  # 1 on the five points, 0 between them
        return 0.75 * (torch.hypot(u, v) - (0.52 + 0.58 * spike))
    a, b = u.abs(), v.abs()
    if name == "square":
        return torch.maximum(a, b) - 0.88
    if name == "diamond":
        return 0.707 * (a + b - 1.15)
    if name == "triangle":
        return torch.maximum(0.866 * a - 0.5 * v, v) - 0.55
    if name == "cross":
        return torch.minimum(torch.maximum(a - 1.0, b - 0.4), torch.maximum(a - 0.4, b - 1.0))
    raise ValueError(f"unknown shape {name!r}")


def _light(name: str, u: Tensor, v: Tensor) -> Tensor:
    """Brightness of the texture, which moves with the shape; a soft light from above left."""
    shade = 0.94 - 0.06 * (u + v)
    if name == "plain":
        return shade
    if name == "striped":
        return shade * (0.78 + 0.22 * torch.tanh(4 * torch.sin(9 * u)))
    if name == "checked":
        return shade * (0.78 + 0.22 * torch.tanh(6 * torch.sin(7 * u) * torch.sin(7 * v)))
    if name == "dotted":
        return shade * (1 - 0.5 * torch.sigmoid(12 * (torch.sin(8 * u) * torch.sin(8 * v) - 0.4)))
    raise ValueError(f"unknown texture {name!r}")
