"""What a toy video holds: shapes with a colour, a texture, a size and a path. A scene is drawn by `veason.toy.render`.

Lengths are pixels of a frame of 160 x 120; times are frame numbers.
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
COVERS = ("square", "circle")  # without holes or points: what another shape can hide behind


@dataclass(frozen=True)
class Shape:
    """One object. `path` holds its centre (x, y) in each frame; a lower `depth` is nearer to the camera."""

    colour: str
    shape: str
    texture: str
    radius: float
    depth: int
    path: tuple[tuple[float, float], ...]
    movement: str


@dataclass(frozen=True)
class Scene:
    """A video of `frames` frames; `ground_seed` draws the textured ground."""

    frames: int
    shapes: tuple[Shape, ...]
    ground_seed: int


def random_scene(rng: random.Random, frames: int = 20, still: bool = False) -> Scene:
    """A scene of three to five shapes, no two of the same colour and shape; about half of the scenes hold one that
    hides behind another.

    They are numbered as they come into the picture, from left to right among those who are there together.

    Args:
        still: one to four shapes that never move instead; where there is one, there is nothing to choose from.
    """
    count = rng.randint(1, 4) if still else rng.randint(3, 5)
    movements = ["still"] * count if still else _movements(rng, count)
    looks = _distinct_looks(rng, count, covered=movements[0] == "cover")
    depths = list(range(count))
    rng.shuffle(depths)
    made: list[Shape] = []
    for (colour, shape), movement, depth in zip(looks, movements, depths):
        radius = {"cover": rng.uniform(23.0, 27.0), "hide": rng.uniform(11.0, 13.0)}.get(
            movement, rng.uniform(12.0, 20.0)
        )
        path = _path(rng, movement, radius, frames, made)
        nearest = -1 if movement == "cover" else depth
        made.append(Shape(colour, shape, rng.choice(TEXTURES), round(radius, 2), nearest, path, movement))
    return Scene(frames, tuple(sorted(made, key=_coming)), rng.randrange(2**31))


def _coming(shape: Shape) -> tuple[int, float]:
    """When a shape's centre first lies in the picture, and how far from the left it does then: an order that can be
    seen.
    """
    inside = ((time, x) for time, (x, y) in enumerate(shape.path) if 0 <= x <= WIDTH and 0 <= y <= HEIGHT)
    return next(inside, (len(shape.path), 0.0))


def _distinct_looks(rng: random.Random, count: int, covered: bool) -> list[tuple[str, str]]:
    """`count` different pairs of colour and shape, the first one solid when it is to cover another.

    One colour or shape is there twice in about half of the scenes, so that one word may not do.
    """
    colours = rng.sample(list(COLOURS), count)
    shapes = rng.sample(SHAPES, count)
    if covered:
        shapes[0] = rng.choice(COVERS)
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
        return ["cover", "hide"] + [rng.choice(names) for _ in range(count - 2)]
    return [rng.choice(names) for _ in range(count)]


def _path(
    rng: random.Random, movement: str, radius: float, frames: int, made: list[Shape]
) -> tuple[tuple[float, float], ...]:
    """The centre in each frame: straight lines between a few (time, place) knots, or a circle."""
    last = frames - 1
    here, there = _inside(rng, radius), _far_from(rng, radius)
    if movement in ("still", "cover"):
        if movement == "cover":
            here = (rng.uniform(45, WIDTH - 45), rng.uniform(40, HEIGHT - 40))
        return _through([(0, here), (last, here)], frames)
    if movement == "circle":
        return _circle(rng, radius, frames)
    if movement == "drift":
        return _through([(0, here), (last, there(here))], frames)
    side = rng.choice(("left", "right", "top", "bottom"))
    if movement == "leave":
        return _through([(0, here), (rng.uniform(0.35, 0.85) * last, _outside(rng, side, radius))], frames)
    if movement == "enter":
        start = rng.uniform(0.15, 0.5) * last
        return _through(
            [(0, _outside(rng, side, radius)), (start, _outside(rng, side, radius)), (start + 0.4 * last, here)], frames
        )
    if movement == "cross":
        across = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
        start = rng.uniform(0.0, 0.35) * last
        begin = _outside(rng, side, radius)
        return _through(
            [(0, begin), (start, begin), (start + rng.uniform(0.4, 0.65) * last, _outside(rng, across, radius))], frames
        )
    if movement == "return":
        away = _outside(rng, side, radius)
        return _through(
            [(0, here), (0.3 * last, away), (rng.uniform(0.5, 0.6) * last, away), (0.9 * last, here)], frames
        )
    if movement == "hide":
        cover = made[0].path[0]
        arrive = rng.uniform(0.3, 0.45) * last
        return _through(
            [(0, there(cover)), (arrive, cover), (arrive + 0.2 * last, cover), (last, there(cover))], frames
        )
    raise ValueError(f"unknown movement {movement!r}")


def _inside(rng: random.Random, radius: float) -> tuple[float, float]:
    return rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)


def _far_from(rng: random.Random, radius: float):
    """A function that gives a place inside the frame, the farthest of six tries from the place it is given."""
    tries = [_inside(rng, radius) for _ in range(6)]

    def farthest(place: tuple[float, float]) -> tuple[float, float]:
        chosen = max(tries, key=lambda other: math.dist(place, other))
        tries.remove(chosen)
        return chosen

    return farthest


def _outside(rng: random.Random, side: str, radius: float) -> tuple[float, float]:
    gap = radius + 4
    x, y = rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)
    return {"left": (-gap, y), "right": (WIDTH + gap, y), "top": (x, -gap), "bottom": (x, HEIGHT + gap)}[side]


def _through(knots: list[tuple[float, tuple[float, float]]], frames: int) -> tuple[tuple[float, float], ...]:
    times = np.arange(frames)
    at = [time for time, _ in knots]
    x, y = (np.interp(times, at, [place[axis] for _, place in knots]) for axis in (0, 1))
    return tuple((round(float(a), 2), round(float(b), 2)) for a, b in zip(x, y))


def _circle(rng: random.Random, radius: float, frames: int) -> tuple[tuple[float, float], ...]:
    reach = rng.uniform(18, 28)
    edge = radius + reach
    centre = (rng.uniform(edge, WIDTH - edge), HEIGHT / 2 if 2 * edge > HEIGHT else rng.uniform(edge, HEIGHT - edge))
    turns, start = rng.choice((-1, 1)) * rng.uniform(1.0, 1.6), rng.uniform(0, 2 * math.pi)
    angles = start + 2 * math.pi * turns * np.arange(frames) / max(frames - 1, 1)
    return tuple(
        (round(float(centre[0] + reach * math.cos(a)), 2), round(float(centre[1] + reach * math.sin(a)), 2))
        for a in angles
    )
