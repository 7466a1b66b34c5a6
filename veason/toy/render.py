"""Draws toy scenes, many at a time, on the CPU or on a GPU: a textured ground and textured shapes with soft edges.

The same functions draw the JPEG frames of a data set and, at any size and in memory, the clips that the toy tracker is
trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from veason.toy.scene import COLOURS, HEIGHT, SHAPES, TEXTURES, WIDTH, Scene

GROUND_WAVES = 4
REACH = 1.15  # radii: no outline of `_outline` goes farther, but for the soft edge


@dataclass(frozen=True)
class SceneBatch:
    """B clips of T frames with K shapes each, as tensors of one device; shape k = 0 is drawn last, over the others.

    Attributes:
        centre: float [B, T, K, 2], x and y in pixels of a 160 x 120 frame.
        radius: float [B, K], pixels.
        kind, texture: int64 [B, K], numbers in SHAPES and TEXTURES.
        colour: float [B, K, 3], 0 to 1.
        ground: float [B, 3], the mean colour of the ground.
        waves: float [B, GROUND_WAVES, 6]: two frequencies (radians per pixel), a phase, and the amplitude in red, green
            and blue.
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


def ground_parameters(
    count: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
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
    """Scenes with equal numbers of frames and of shapes as one batch, and for each the scene's own number of the k-th
    drawn shape.
    """
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
        frames float [B, T, 3, H, W] in 0..1; visible bool [B, T, K, H, W], the pixels of each shape that no nearer one
        covers; whole bool [B, T, K, H, W], its pixels in the frame as if nothing covered it.
    """
    places = windows(batch, height, width)
    return paint(batch, places, height, width, generator), *masks(places, height, width)


def paint(
    batch: SceneBatch,
    places: Sequence[Window],
    height: int = HEIGHT,
    width: int = WIDTH,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`frames` of `render`, those of `places` (`windows`)."""
    (clips, times, _), size = places[0].pixels.shape, height * width
    ground = _draw_ground(batch, height, width).flatten(2)
    frames = ground.new_empty(clips, times, 3, size + 1)
    frames[..., :size] = ground.unsqueeze(1)
    for k in reversed(range(len(places))):  # from the farthest to the nearest
        pixels = places[k].pixels.unsqueeze(2).expand(-1, -1, 3, -1)
        under = frames.gather(3, pixels)
        frames.scatter_(3, pixels, under + places[k].cover.unsqueeze(2) * (_colour(batch, k, places[k]) - under))
    frames = frames[..., :size].unflatten(3, (height, width))
    noise = torch.randn(frames.shape, generator=generator, device=frames.device)
    return (frames + batch.grain.view(-1, 1, 1, 1, 1) * noise).clamp_(0, 1)


def to_pixels(frames: Tensor) -> np.ndarray:
    """float [T, 3, H, W] in 0..1 as uint8 [T, H, W, 3]."""
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


@dataclass(frozen=True)
class Window:
    """The square around a shape in each frame: N pixels, all that it touches and some more.

    Attributes:
        pixels: int64 [B, T, N], their numbers in the frame row by row; H * W for those outside the frame.
        u, v: float [B, T, N], where they lie in the shape: -1 to 1 across it.
        cover: float [B, T, N], how much of each the shape would cover.
    """

    pixels: Tensor
    u: Tensor
    v: Tensor
    cover: Tensor

    def at(self, times: Sequence[int]) -> Window:
        """In some of the frames."""
        return Window(*(part[:, times] for part in (self.pixels, self.u, self.v, self.cover)))


def windows(batch: SceneBatch, height: int = HEIGHT, width: int = WIDTH) -> list[Window]:
    """Of each of the K shapes."""
    return [_window(batch, k, height, width) for k in range(batch.centre.shape[2])]


def masks(places: Sequence[Window], height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """`visible` and `whole` of `render`."""
    clips, times, _ = places[0].pixels.shape
    whole = torch.zeros(clips, times, len(places), height * width + 1, dtype=torch.bool, device=places[0].pixels.device)
    for k, place in enumerate(places):
        whole[:, :, k].scatter_(2, place.pixels, place.cover > 0.5)
    whole = whole[..., :-1].unflatten(3, (height, width))
    visible = whole.clone()
    free = ~whole[:, :, 0]
    for k in range(1, len(places)):
        visible[:, :, k] &= free
        free &= ~whole[:, :, k]
    return visible, whole


def _window(batch: SceneBatch, k: int, height: int, width: int) -> Window:
    """Of shape k."""
    reach = REACH * float(batch.radius[:, k].max()) + 2
    radius = batch.radius[:, k, None, None]
    numbers, places = [], []
    for axis, (count, length) in enumerate(((width, WIDTH), (height, HEIGHT))):
        centre, scale = batch.centre[:, :, k, axis, None], count / length
        half = math.ceil(reach * scale)
        number = (centre * scale).floor().long() + torch.arange(-half, half + 1, device=centre.device)
        numbers.append(number)
        places.append((_pixel_centres(number, scale) - centre) / radius)
    (column, row), (u, v) = numbers, places
    inside = ((row >= 0) & (row < height)).unsqueeze(3) & ((column >= 0) & (column < width)).unsqueeze(2)
    pixels = torch.where(inside, row.unsqueeze(3) * width + column.unsqueeze(2), height * width)
    u, v = (side.flatten(2) for side in torch.broadcast_tensors(u.unsqueeze(2), v.unsqueeze(3)))
    outline = _by_kind(_outline, SHAPES, batch.kind[:, k], u, v)
    return Window(pixels.flatten(2), u, v, (0.5 - outline * radius).clamp_(0, 1))


def _pixel_centres(numbers: Tensor, scale: float) -> Tensor:
    """Where pixels lie in a frame of 160 x 120; `scale` is how many of them lie in one of its own."""
    return (numbers.to(torch.float32) + 0.5) * (1 / scale)


def _draw_ground(batch: SceneBatch, height: int, width: int) -> Tensor:
    """float [B, 3, H, W]."""
    x, y = (
        _pixel_centres(torch.arange(n, device=batch.waves.device), n / full)
        for n, full in ((width, WIDTH), (height, HEIGHT))
    )
    fx, fy, phase = (batch.waves[:, :, i, None, None] for i in range(3))
    waves = torch.sin(fx * x + fy * y.unsqueeze(1) + phase)  # [B, waves, H, W]
    return batch.ground[:, :, None, None] + torch.einsum("bnhw,bnc->bchw", waves, batch.waves[:, :, 3:])


def _colour(batch: SceneBatch, k: int, window: Window) -> Tensor:
    """The colour of shape k, [B, T, 3, N]."""
    light = _by_kind(_light, TEXTURES, batch.texture[:, k], window.u, window.v)
    return batch.colour[:, k, None, :, None] * light.unsqueeze(2)


def _by_kind(
    function: Callable[[str, Tensor, Tensor], Tensor], names: Sequence[str], kind: Tensor, u: Tensor, v: Tensor
) -> Tensor:
    """function(name, u, v) with each clip's own name, number `kind` [B] of `names`."""
    if len(kind) == 1:
        return function(names[int(kind)], u, v)
    values = torch.empty_like(u)
    for number, name in enumerate(names):
        rows = (kind == number).nonzero().flatten()
        if len(rows):
            values[rows] = function(name, u[rows], v[rows])
    return values


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
