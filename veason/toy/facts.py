"""What is true of a drawn scene: who is in view when, who moves where, who leaves, enters, comes back or hides behind
whom.

Everything is read from the drawn pixels, so an expression or a reasoning that is made from facts is true of the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from veason.toy.scene import Scene

FEWEST_PIXELS = 8  # of a 160 x 120 frame: a shape with fewer is taken as not in view


@dataclass(frozen=True)
class ObjectFacts:
    """One shape over T frames.

    Attributes:
        share: [T], visible pixels over the most that the shape ever shows in the frame uncovered; 0 where it is not in
            view.
        boxes: per frame its extreme visible pixels (left, top, right, bottom), inclusive, or None.
        way: from its first to its last place in the picture, pixels to the right and down.
        speed: mean way per frame in pixels while in the frame.
        enters, leaves: the first and the last frame in the picture, when it is not there at the beginning or at the
            end.
        gone: frames between which it was out of the picture and came back.
        hidden: the frames in which it is in the picture and fully covered; `behind` is the shape that covers it then.
        covered_by: the shapes that ever cover a tenth of it.
    """

    colour: str
    shape: str
    texture: str
    radius: float
    share: tuple[float, ...]
    boxes: tuple[tuple[int, int, int, int] | None, ...]
    way: tuple[float, float]
    speed: float
    circles: bool
    enters: int | None
    leaves: int | None
    gone: tuple[int, int] | None
    hidden: tuple[int, ...]
    behind: int | None
    covered_by: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def still(self) -> bool:
        return self.speed < 0.05

    @property
    def direction(self) -> str:
        """ "left", "right", "up" or "down" when the way is clearly one of them, else ""."""
        x, y = self.way
        if abs(x) > 25 and abs(x) > 2 * abs(y):
            return "right" if x > 0 else "left"
        if abs(y) > 25 and abs(y) > 2 * abs(x):
            return "down" if y > 0 else "up"
        return ""

    def advance(self, direction: str) -> float:
        """Pixels of the way that lie in a direction."""
        return {"right": self.way[0], "left": -self.way[0], "down": self.way[1], "up": -self.way[1]}[direction]


def scene_facts(scene: Scene, visible: np.ndarray, whole: np.ndarray) -> list[ObjectFacts]:
    """Facts of every shape of a scene.

    Args:
        visible, whole: bool [T, K, H, W] in the scene's order of shapes, as `veason.toy.render.render` gives them.
    """
    bits = np.packbits(whole.reshape(*whole.shape[:2], -1), axis=2)
    overlaps = np.bitwise_count(bits[:, :, None] & bits[:, None]).sum(3, dtype=np.int64)
    extents = overlaps.diagonal(axis1=1, axis2=2)
    areas = np.array([[np.count_nonzero(mask) for mask in frame] for frame in visible])
    return [_facts(scene, k, visible[:, k], areas[:, k], extents, overlaps) for k in range(len(scene.shapes))]


def _facts(
    scene: Scene, k: int, visible: np.ndarray, area: np.ndarray, extents: np.ndarray, overlaps: np.ndarray
) -> ObjectFacts:
    """`overlaps` int64 [T, K, K]: pixels that two shapes share as if nothing covered them."""
    shape = scene.shapes[k]
    inside = extents[:, k] >= FEWEST_PIXELS
    seen = area >= FEWEST_PIXELS
    largest = max(int(extents[:, k].max()), 1)
    when = np.flatnonzero(inside)
    path = np.asarray(shape.path)
    steps = [float(np.hypot(*(path[t + 1] - path[t]))) for t in range(scene.frames - 1) if inside[t] and inside[t + 1]]
    way = path[when[-1]] - path[when[0]] if len(when) else np.zeros(2)
    gaps = np.flatnonzero(np.diff(when) > 1)
    hidden = np.flatnonzero((extents[:, k] > 0.5 * largest) & ~seen)
    return ObjectFacts(
        colour=shape.colour,
        shape=shape.shape,
        texture=shape.texture,
        radius=shape.radius,
        share=tuple(round(float(a) / largest, 3) if ok else 0.0 for a, ok in zip(area, seen)),
        boxes=tuple(_box(visible[t]) if seen[t] else None for t in range(scene.frames)),
        way=(round(float(way[0]), 1), round(float(way[1]), 1)),
        speed=round(float(np.mean(steps)), 3) if steps else 0.0,
        circles=shape.movement == "circle",
        enters=int(when[0]) if len(when) and when[0] > 0 else None,
        leaves=int(when[-1]) if len(when) and when[-1] < scene.frames - 1 else None,
        gone=(int(when[gaps[0]]), int(when[gaps[0] + 1])) if len(gaps) else None,
        hidden=tuple(int(t) for t in hidden),
        behind=_cover(overlaps[hidden], k, scene) if len(hidden) else None,
        covered_by=tuple(
            j
            for j, other in enumerate(scene.shapes)
            if other.depth < shape.depth and _covers(overlaps[:, j, k], extents[:, k])
        ),
    )


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _cover(overlaps: np.ndarray, k: int, scene: Scene) -> int | None:
    """The nearer shape that alone covers most of shape k while it is hidden; None when it takes several."""
    shared = [
        int(overlaps[:, j, k].sum()) if other.depth < scene.shapes[k].depth else 0
        for j, other in enumerate(scene.shapes)
    ]
    best = int(np.argmax(shared))
    return best if shared[best] > 0.8 * int(overlaps[:, k, k].sum()) else None


def _covers(overlap: np.ndarray, size: np.ndarray) -> bool:
    return bool((overlap > 0.1 * size).any())
