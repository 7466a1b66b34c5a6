"""Random scene descriptions: objects with a colour, a shape, a texture, a size and a trajectory.

`veason.toy.render` renders them. Lengths are pixels of a 160 x 120 frame.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 160, 120

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.12, 0.12),
    "green": (0.10, 0.66, 0.16),
    "blue": (0.14, 0.28, 0.92),
    "yellow": (0.95, 0.86, 0.10),
    "purple": (0.60, 0.14, 0.74),
    "orange": (0.98, 0.52, 0.06),
    "cyan": (0.10, 0.80, 0.86),
    "white": (0.96, 0.96, 0.96),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring")
TEXTURES = ("plain", "striped", "dotted", "checked")
OCCLUDERS = ("square", "circle")  # solid shapes, which can occlude another one completely


@dataclass(frozen=True)
class SceneObject:
    """One object: `path` holds its centre (x, y) in each frame; a lower `depth` is nearer to the camera."""

    colour: str
    shape: str
    texture: str
    radius: float
    depth: int
    path: tuple[tuple[float, float], ...]
    movement: str


@dataclass(frozen=True)
class Scene:
    """A video of `frames` frames; `background_seed` determines the background texture."""

    frames: int
    shapes: tuple[SceneObject, ...]
    background_seed: int


def random_scene(rng: random.Random, frames: int = 20, still: bool = False) -> Scene:
    """Draws a scene of three to five objects with distinct (colour, shape) pairs; half of the scenes have an occlusion.

    Objects are indexed by the frame in which they enter, and from left to right within a frame.

    Args:
        still: one to four objects that never move, instead.
    """
    count = rng.randint(1, 4) if still else rng.randint(3, 5)
    movements = ["still"] * count if still else _movements(rng, count)
    looks = _distinct_looks(rng, count, occluder_first=movements[0] == "occluder")
    depths = list(range(count))
    rng.shuffle(depths)
    shapes: list[SceneObject] = []
    for (colour, shape), movement, depth in zip(looks, movements, depths):
        radius = {"occluder": rng.uniform(23.0, 27.0), "occluded": rng.uniform(11.0, 13.0)}.get(
            movement, rng.uniform(12.0, 20.0)
        )
        path = _path(rng, movement, radius, frames, shapes)
        depth = -1 if movement == "occluder" else depth
        shapes.append(SceneObject(colour, shape, rng.choice(TEXTURES), round(radius, 2), depth, path, movement))
    return Scene(frames, tuple(sorted(shapes, key=_entry_order)), rng.randrange(2**31))


def _entry_order(shape: SceneObject) -> tuple[int, float]:
    """Sort key: the frame in which the centre first lies inside the frame, and its x there."""
    inside = ((index, x) for index, (x, y) in enumerate(shape.path) if 0 <= x <= WIDTH and 0 <= y <= HEIGHT)
    return next(inside, (len(shape.path), 0.0))


def _distinct_looks(rng: random.Random, count: int, occluder_first: bool) -> list[tuple[str, str]]:
    """`count` distinct (colour, shape) pairs; the first one is a solid shape when it is the occluder.

    In about half of the scenes one colour or shape occurs twice, so that a single attribute may be ambiguous.
    """
    colours = rng.sample(list(COLOURS), count)
    shapes = rng.sample(SHAPES, count)
    if occluder_first:
        shapes[0] = rng.choice(OCCLUDERS)
    if count == 1:
        return list(zip(colours, shapes))
    if rng.random() < 0.35:
        shapes[1] = shapes[0]
    if rng.random() < 0.35 and shapes[-1] != shapes[-2]:
        colours[-1] = colours[-2]
    return list(zip(colours, shapes))


def _movements(rng: random.Random, count: int) -> list[str]:
    names = ["still", "drift", "drift", "leave", "enter", "cross", "cross", "circle", "return"]
    if rng.random() < 0.5:
        return ["occluder", "occluded"] + [rng.choice(names) for _ in range(count - 2)]
    return [rng.choice(names) for _ in range(count)]


def _path(
    rng: random.Random, movement: str, radius: float, frames: int, earlier: list[SceneObject]
) -> tuple[tuple[float, float], ...]:
    """The centre in each frame: linear between a few (frame index, position) knots, or a circle."""
    last = frames - 1
    here, there = _inside(rng, radius), _distant_point_picker(rng, radius)
    if movement in ("still", "occluder"):
        if movement == "occluder":
            here = (rng.uniform(45, WIDTH - 45), rng.uniform(40, HEIGHT - 40))
        return _interpolate([(0, here), (last, here)], frames)
    if movement == "circle":
        return _circle(rng, radius, frames)
    if movement == "drift":
        return _interpolate([(0, here), (last, there(here))], frames)
    side = rng.choice(("left", "right", "top", "bottom"))
    if movement == "leave":
        return _interpolate([(0, here), (rng.uniform(0.35, 0.85) * last, _outside(rng, side, radius))], frames)
    if movement == "enter":
        start = rng.uniform(0.15, 0.5) * last
        return _interpolate(
            [(0, _outside(rng, side, radius)), (start, _outside(rng, side, radius)), (start + 0.4 * last, here)], frames
        )
    if movement == "cross":
        across = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
        start = rng.uniform(0.0, 0.35) * last
        begin = _outside(rng, side, radius)
        return _interpolate(
            [(0, begin), (start, begin), (start + rng.uniform(0.4, 0.65) * last, _outside(rng, across, radius))], frames
        )
    if movement == "return":
        away = _outside(rng, side, radius)
        return _interpolate(
            [(0, here), (0.3 * last, away), (rng.uniform(0.5, 0.6) * last, away), (0.9 * last, here)], frames
        )
    if movement == "occluded":
        occluder = earlier[0].path[0]
        arrive = rng.uniform(0.3, 0.45) * last
        return _interpolate(
            [(0, there(occluder)), (arrive, occluder), (arrive + 0.2 * last, occluder), (last, there(occluder))], frames
        )
    raise ValueError(f"unknown movement {movement!r}")


def _inside(rng: random.Random, radius: float) -> tuple[float, float]:
    return rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)


def _distant_point_picker(rng: random.Random, radius: float):
    """A function that returns, of six random points inside the frame, the farthest from its argument; each one once."""
    candidates = [_inside(rng, radius) for _ in range(6)]

    def farthest(point: tuple[float, float]) -> tuple[float, float]:
        chosen = max(candidates, key=lambda other: math.dist(point, other))
        candidates.remove(chosen)
        return chosen

    return farthest


def _outside(rng: random.Random, side: str, radius: float) -> tuple[float, float]:
    gap = radius + 4
    x, y = rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)
    return {"left": (-gap, y), "right": (WIDTH + gap, y), "top": (x, -gap), "bottom": (x, HEIGHT + gap)}[side]


def _interpolate(knots: list[tuple[float, tuple[float, float]]], frames: int) -> tuple[tuple[float, float], ...]:
    indices = np.arange(frames)
    at = [index for index, _ in knots]
    x, y = (np.interp(indices, at, [point[axis] for _, point in knots]) for axis in (0, 1))
    return tuple((round(float(a), 2), round(float(b), 2)) for a, b in zip(x, y))


def _circle(rng: random.Random, radius: float, frames: int) -> tuple[tuple[float, float], ...]:
    orbit = rng.uniform(18, 28)
    edge = radius + orbit
    centre = (rng.uniform(edge, WIDTH - edge), HEIGHT / 2 if 2 * edge > HEIGHT else rng.uniform(edge, HEIGHT - edge))
    turns, start = rng.choice((-1, 1)) * rng.uniform(1.0, 1.6), rng.uniform(0, 2 * math.pi)
    angles = start + 2 * math.pi * turns * np.arange(frames) / max(frames - 1, 1)
    return tuple(
        (round(float(centre[0] + orbit * math.cos(a)), 2), round(float(centre[1] + orbit * math.sin(a)), 2))
        for a in angles
    )
