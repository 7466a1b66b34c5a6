"""Renders toy scenes: textured shapes with antialiased edges over a textured background, 160 x 120 pixels.

The same functions render the JPEG frames of a data set and, in memory, prompts for training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from veason.toy.scene import COLOURS, HEIGHT, WIDTH, Scene

BACKGROUND_WAVES = 4
MAX_EXTENT = 1.15  # radii: the farthest that an outline of `_signed_distance` reaches, without its antialiased edge


@dataclass(frozen=True)
class SceneTensors:
    """A scene of T frames with K objects, from front to back.

    Attributes:
        order: the scene's own index of each object.
        centre: float [T, K, 2], x and y in pixels.
        radius: float [K], pixels.
        shapes, textures: names, of SHAPES and TEXTURES.
        colour: float [K, 3], 0 to 1.
        background: float [3], mean colour of the background.
        waves: float [BACKGROUND_WAVES, 6]: x and y frequency (radians per pixel), phase, amplitudes of RGB.
        noise_std: float [], standard deviation of the noise of each frame.
    """

    order: list[int]
    centre: Tensor
    radius: Tensor
    shapes: list[str]
    textures: list[str]
    colour: Tensor
    background: Tensor
    waves: Tensor
    noise_std: Tensor


def scene_tensors(scene: Scene) -> SceneTensors:
    """A scene as tensors on the CPU."""
    order = np.argsort([shape.depth for shape in scene.shapes], kind="stable").tolist()
    shapes = [scene.shapes[k] for k in order]
    return SceneTensors(
        order,
        torch.tensor([shape.path for shape in shapes]).transpose(0, 1).contiguous(),
        torch.tensor([shape.radius for shape in shapes]),
        [shape.shape for shape in shapes],
        [shape.texture for shape in shapes],
        torch.tensor([COLOURS[shape.colour] for shape in shapes]),
        *_random_background(torch.Generator().manual_seed(scene.background_seed)),
    )


def _random_background(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random (background, waves, noise_std) of a scene: dull colours, gratings of low and high frequency."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    background = 0.35 + 0.2 * uniform(1) + 0.12 * (uniform(3) - 0.5)
    angle = 2 * math.pi * uniform(BACKGROUND_WAVES)
    length = 8.0 * 8.0 ** uniform(BACKGROUND_WAVES)  # pixels, 8 to 64
    frequency = 2 * math.pi / length
    amplitude = 0.05 * (uniform(BACKGROUND_WAVES, 1) + 0.6 * (uniform(BACKGROUND_WAVES, 3) - 0.5))
    phase = 2 * math.pi * uniform(BACKGROUND_WAVES)
    waves = torch.cat([torch.stack([frequency * angle.cos(), frequency * angle.sin(), phase], -1), amplitude], -1)
    return background, waves, 0.01 + 0.03 * uniform(1)[0]


@dataclass(frozen=True)
class ObjectCrop:
    """A square of N pixels around an object in each frame, large enough for all pixels that it touches.

    Attributes:
        pixels: int64 [T, N], row-major pixel indices; H * W for pixels outside the frame.
        u, v: float [T, N], coordinates relative to the object: -1 to 1 across its radius.
        alpha: float [T, N], coverage of each pixel by the object, 0 to 1.
    """

    pixels: Tensor
    u: Tensor
    v: Tensor
    alpha: Tensor

    def at(self, indices: Sequence[int]) -> ObjectCrop:
        """The crop at some of the frames."""
        return ObjectCrop(*(part[indices] for part in (self.pixels, self.u, self.v, self.alpha)))


def object_crops(scene: SceneTensors) -> list[ObjectCrop]:
    """The crops of the K objects, front to back."""
    return [_object_crop(scene, k) for k in range(len(scene.radius))]


def draw_frames(scene: SceneTensors, crops: Sequence[ObjectCrop], generator: torch.Generator | None = None) -> Tensor:
    """The frames that `crops` holds, float [T, 3, H, W] in 0..1.

    Args:
        generator: for the noise.
    """
    total, size = len(crops[0].pixels), HEIGHT * WIDTH
    frames = scene.background.new_empty(total, 3, size + 1)
    frames[..., :size] = _draw_background(scene).flatten(1)
    for k in reversed(range(len(crops))):  # back to front
        pixels = crops[k].pixels.unsqueeze(1).expand(-1, 3, -1)
        under = frames.gather(2, pixels)
        frames.scatter_(2, pixels, under + crops[k].alpha.unsqueeze(1) * (_colour(scene, k, crops[k]) - under))
    frames = frames[..., :size].unflatten(2, (HEIGHT, WIDTH))
    noise = torch.randn(frames.shape, generator=generator)
    return (frames + scene.noise_std * noise).clamp_(0, 1)


def draw_masks(scene: SceneTensors, crops: Sequence[ObjectCrop]) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of each object in the scene's own order, bool [T, K, H, W]: `visible`, its pixels that no nearer object
    occludes, and `amodal`, its pixels as if nothing occluded it.
    """
    amodal = torch.zeros(len(crops[0].pixels), len(crops), HEIGHT * WIDTH + 1, dtype=torch.bool)
    for k, crop in enumerate(crops):
        amodal[:, k].scatter_(1, crop.pixels, crop.alpha > 0.5)
    amodal = amodal[..., :-1].unflatten(2, (HEIGHT, WIDTH))
    visible = amodal.clone()
    free = ~amodal[:, 0]
    for k in range(1, len(crops)):
        visible[:, k] &= free
        free &= ~amodal[:, k]
    own = np.argsort(scene.order)
    return visible.numpy()[:, own], amodal.numpy()[:, own]


def to_pixels(frames: Tensor) -> np.ndarray:
    """Converts float [T, 3, H, W] in 0..1 to uint8 [T, H, W, 3]."""
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _object_crop(scene: SceneTensors, k: int) -> ObjectCrop:
    radius = scene.radius[k]
    half = math.ceil(MAX_EXTENT * float(radius) + 2)
    centre = scene.centre[:, k, :, None]  # [T, 2, 1]
    index = centre.floor().long() + torch.arange(-half, half + 1)
    (column, row), (u, v) = index.unbind(1), ((_pixel_centres(index) - centre) / radius).unbind(1)
    inside = ((row >= 0) & (row < HEIGHT)).unsqueeze(2) & ((column >= 0) & (column < WIDTH)).unsqueeze(1)
    pixels = torch.where(inside, row.unsqueeze(2) * WIDTH + column.unsqueeze(1), HEIGHT * WIDTH)
    u, v = (side.flatten(1) for side in torch.broadcast_tensors(u.unsqueeze(1), v.unsqueeze(2)))
    distance = _signed_distance(scene.shapes[k], u, v)
    return ObjectCrop(pixels.flatten(1), u, v, (0.5 - distance * radius).clamp_(0, 1))


def _pixel_centres(indices: Tensor) -> Tensor:
    return indices.to(torch.float32) + 0.5


def _draw_background(scene: SceneTensors) -> Tensor:
    """The background as float [3, H, W]."""
    x, y = (_pixel_centres(torch.arange(length)) for length in (WIDTH, HEIGHT))
    fx, fy, phase = scene.waves[:, :3, None, None].unbind(1)
    waves = torch.sin(fx * x + fy * y.unsqueeze(1) + phase)  # [waves, H, W]
    return scene.background[:, None, None] + torch.einsum("nhw,nc->chw", waves, scene.waves[:, 3:])


def _colour(scene: SceneTensors, k: int, crop: ObjectCrop) -> Tensor:
    """The colour of object k, [T, 3, N]."""
    return scene.colour[k, None, :, None] * _brightness(scene.textures[k], crop.u, crop.v).unsqueeze(1)


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
