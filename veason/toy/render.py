"""Batched renderer of toy scenes on CPU or GPU: a textured background and textured shapes with antialiased edges.

The same functions render the JPEG frames of a data set and, at any size and in memory, prompts for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from veason.toy.scene import COLOURS, HEIGHT, SHAPES, TEXTURES, WIDTH, Scene

BACKGROUND_WAVES = 4
MAX_EXTENT = 1.15  # radii: the farthest that an outline of `_signed_distance` reaches, without its antialiased edge


@dataclass(frozen=True)
class SceneBatch:
    """B clips of T frames with K objects each, on one device; object k = 0 is in front of the others.

    Attributes:
        centre: float [B, T, K, 2], x and y in pixels of a 160 x 120 frame.
        radius: float [B, K], pixels.
        kind, texture: int64 [B, K], indices into SHAPES and TEXTURES.
        colour: float [B, K, 3], 0 to 1.
        background: float [B, 3], mean colour of the background.
        waves: float [B, BACKGROUND_WAVES, 6]: x and y frequency (radians per pixel), phase, amplitudes of RGB.
        noise_std: float [B], standard deviation of the noise of each frame.
    """

    centre: Tensor
    radius: Tensor
    kind: Tensor
    texture: Tensor
    colour: Tensor
    background: Tensor
    waves: Tensor
    noise_std: Tensor


def background_parameters(
    count: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Random (background, waves, noise_std) of `count` clips: dull colours, gratings of low and high frequency."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    background = 0.35 + 0.2 * uniform(count, 1) + 0.12 * (uniform(count, 3) - 0.5)
    angle = 2 * math.pi * uniform(count, BACKGROUND_WAVES)
    length = 8.0 * 8.0 ** uniform(count, BACKGROUND_WAVES)  # pixels, 8 to 64
    frequency = 2 * math.pi / length
    amplitude = 0.05 * (uniform(count, BACKGROUND_WAVES, 1) + 0.6 * (uniform(count, BACKGROUND_WAVES, 3) - 0.5))
    phase = 2 * math.pi * uniform(count, BACKGROUND_WAVES)
    waves = torch.cat([torch.stack([frequency * angle.cos(), frequency * angle.sin(), phase], -1), amplitude], -1)
    return background, waves, 0.01 + 0.03 * uniform(count)


def scene_batch(scenes: Sequence[Scene]) -> tuple[SceneBatch, list[list[int]]]:
    """Batches scenes with equal numbers of frames and of objects.

    Returns:
        The batch, and per scene the scene's own index of the batch's k-th object, from front to back.
    """
    order = [np.argsort([shape.depth for shape in scene.shapes], kind="stable").tolist() for scene in scenes]
    shapes = [[scene.shapes[k] for k in ks] for scene, ks in zip(scenes, order)]
    backgrounds = [background_parameters(1, torch.Generator().manual_seed(scene.background_seed)) for scene in scenes]
    background, waves, noise_std = (torch.cat(parts) for parts in zip(*backgrounds))
    return SceneBatch(
        centre=torch.tensor([[s.path for s in row] for row in shapes]).transpose(1, 2).contiguous(),
        radius=torch.tensor([[s.radius for s in row] for row in shapes]),
        kind=torch.tensor([[SHAPES.index(s.shape) for s in row] for row in shapes]),
        texture=torch.tensor([[TEXTURES.index(s.texture) for s in row] for row in shapes]),
        colour=torch.tensor([[COLOURS[s.colour] for s in row] for row in shapes]),
        background=background,
        waves=waves,
        noise_std=noise_std,
    ), order


def render(
    batch: SceneBatch, height: int = HEIGHT, width: int = WIDTH, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Renders every frame; other sizes than 160 x 120 scale the picture.

    Args:
        generator: of the batch's device, for the noise.

    Returns:
        frames float [B, T, 3, H, W] in 0..1; visible bool [B, T, K, H, W], each object's pixels that no nearer object
        occludes; amodal bool [B, T, K, H, W], its pixels as if nothing occluded it.
    """
    crops = object_crops(batch, height, width)
    return draw_frames(batch, crops, height, width, generator), *draw_masks(crops, height, width)


def draw_frames(
    batch: SceneBatch,
    crops: Sequence[ObjectCrop],
    height: int = HEIGHT,
    width: int = WIDTH,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The `frames` of `render` that `crops` holds."""
    (clips, total, _), size = crops[0].pixels.shape, height * width
    background = _draw_background(batch, height, width).flatten(2)
    frames = background.new_empty(clips, total, 3, size + 1)
    frames[..., :size] = background.unsqueeze(1)
    for k in reversed(range(len(crops))):  # back to front
        pixels = crops[k].pixels.unsqueeze(2).expand(-1, -1, 3, -1)
        under = frames.gather(3, pixels)
        frames.scatter_(3, pixels, under + crops[k].alpha.unsqueeze(2) * (_colour(batch, k, crops[k]) - under))
    frames = frames[..., :size].unflatten(3, (height, width))
    noise = torch.randn(frames.shape, generator=generator, device=frames.device)
    return (frames + batch.noise_std.view(-1, 1, 1, 1, 1) * noise).clamp_(0, 1)


def to_pixels(frames: Tensor) -> np.ndarray:
    """Converts float [T, 3, H, W] in 0..1 to uint8 [T, H, W, 3]."""
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


@dataclass(frozen=True)
class ObjectCrop:
    """A square of N pixels around an object in each frame, large enough for all pixels that it touches.

    Attributes:
        pixels: int64 [B, T, N], row-major pixel indices; H * W for pixels outside the frame.
        u, v: float [B, T, N], coordinates relative to the object: -1 to 1 across its radius.
        alpha: float [B, T, N], coverage of each pixel by the object, 0 to 1.
    """

    pixels: Tensor
    u: Tensor
    v: Tensor
    alpha: Tensor

    def at(self, indices: Sequence[int]) -> ObjectCrop:
        """The crop at some of the frames."""
        return ObjectCrop(*(part[:, indices] for part in (self.pixels, self.u, self.v, self.alpha)))


def object_crops(batch: SceneBatch, height: int = HEIGHT, width: int = WIDTH) -> list[ObjectCrop]:
    """The crops of the K objects, front to back."""
    return [_object_crop(batch, k, height, width) for k in range(batch.centre.shape[2])]


def draw_masks(crops: Sequence[ObjectCrop], height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """The `visible` and `amodal` masks of `render`."""
    clips, total, _ = crops[0].pixels.shape
    amodal = torch.zeros(clips, total, len(crops), height * width + 1, dtype=torch.bool, device=crops[0].pixels.device)
    for k, crop in enumerate(crops):
        amodal[:, :, k].scatter_(2, crop.pixels, crop.alpha > 0.5)
    amodal = amodal[..., :-1].unflatten(3, (height, width))
    visible = amodal.clone()
    free = ~amodal[:, :, 0]
    for k in range(1, len(crops)):
        visible[:, :, k] &= free
        free &= ~amodal[:, :, k]
    return visible, amodal


def _object_crop(batch: SceneBatch, k: int, height: int, width: int) -> ObjectCrop:
    extent = MAX_EXTENT * float(batch.radius[:, k].max()) + 2
    radius = batch.radius[:, k, None, None]
    indices, coordinates = [], []
    for axis, (count, length) in enumerate(((width, WIDTH), (height, HEIGHT))):
        centre, scale = batch.centre[:, :, k, axis, None], count / length
        half = math.ceil(extent * scale)
        index = (centre * scale).floor().long() + torch.arange(-half, half + 1, device=centre.device)
        indices.append(index)
        coordinates.append((_pixel_centres(index, scale) - centre) / radius)
    (column, row), (u, v) = indices, coordinates
    inside = ((row >= 0) & (row < height)).unsqueeze(3) & ((column >= 0) & (column < width)).unsqueeze(2)
    pixels = torch.where(inside, row.unsqueeze(3) * width + column.unsqueeze(2), height * width)
    u, v = (side.flatten(2) for side in torch.broadcast_tensors(u.unsqueeze(2), v.unsqueeze(3)))
    distance = _by_kind(_signed_distance, SHAPES, batch.kind[:, k], u, v)
    return ObjectCrop(pixels.flatten(2), u, v, (0.5 - distance * radius).clamp_(0, 1))


def _pixel_centres(indices: Tensor, scale: float) -> Tensor:
    """Coordinates in a 160 x 120 frame of the centres of pixels; `scale` is the number of pixels per unit."""
    return (indices.to(torch.float32) + 0.5) * (1 / scale)


def _draw_background(batch: SceneBatch, height: int, width: int) -> Tensor:
    """The background as float [B, 3, H, W]."""
    x, y = (
        _pixel_centres(torch.arange(n, device=batch.waves.device), n / full)
        for n, full in ((width, WIDTH), (height, HEIGHT))
    )
    fx, fy, phase = (batch.waves[:, :, i, None, None] for i in range(3))
    waves = torch.sin(fx * x + fy * y.unsqueeze(1) + phase)  # [B, waves, H, W]
    return batch.background[:, :, None, None] + torch.einsum("bnhw,bnc->bchw", waves, batch.waves[:, :, 3:])


def _colour(batch: SceneBatch, k: int, crop: ObjectCrop) -> Tensor:
    """The colour of object k, [B, T, 3, N]."""
    brightness = _by_kind(_brightness, TEXTURES, batch.texture[:, k], crop.u, crop.v)
    return batch.colour[:, k, None, :, None] * brightness.unsqueeze(2)


def _by_kind(
    function: Callable[[str, Tensor, Tensor], Tensor], names: Sequence[str], kind: Tensor, u: Tensor, v: Tensor
) -> Tensor:
    """Applies function(name, u, v) to each clip with its own name, `names[kind]`, kind [B]."""
    if len(kind) == 1:
        return function(names[int(kind)], u, v)
    values = torch.empty_like(u)
    for number, name in enumerate(names):
        rows = (kind == number).nonzero().flatten()
        if len(rows):
            values[rows] = function(name, u[rows], v[rows])
    return values


def _signed_distance(name: str, u: Tensor, v: Tensor) -> Tensor:
    """Approximate signed distance to the outline in radii, negative inside; v points down."""
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


def _brightness(name: str, u: Tensor, v: Tensor) -> Tensor:
    """Brightness of the texture in object coordinates, lit from the upper left."""
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
