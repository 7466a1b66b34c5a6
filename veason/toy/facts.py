"""Ground-truth facts about each object of a rendered scene: visibility, motion, entering, leaving and occlusion.

All facts are computed from the rendered masks, so expressions and reasoning made from them are true of the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from veason.toy.scene import Scene

MIN_VISIBLE_PIXELS = 8  # of a 160 x 120 frame; an object with fewer visible pixels counts as not visible


@dataclass(frozen=True)
class ObjectFacts:
    """Facts about one object over T frames.

    Attributes:
        visible_ratio: [T], visible pixels over the largest area that the object ever has unoccluded inside a frame; 0
            where it is not visible.
        boxes: per frame the extreme visible pixels (left, top, right, bottom), inclusive, or None.
        displacement: from its first to its last position inside the frame, pixels to the right and down.
        speed: mean displacement per frame in pixels, while inside the frame.
        enters, leaves: first and last frame index inside the frame; None when it is inside from the start, or to the
            end.
        absence: last frame index before it left the frame and first one after it came back, or None.
        hidden: frame indices at which it is inside the frame and fully occluded.
        hidden_behind: index of the object that occludes it at those frames.
        occluders: indices of the objects that ever occlude a tenth of it.
    """

    colour: str
    shape: str
    texture: str
    radius: float
    visible_ratio: tuple[float, ...]
    boxes: tuple[tuple[int, int, int, int] | None, ...]
    displacement: tuple[float, float]
    speed: float
    circles: bool
    enters: int | None
    leaves: int | None
    absence: tuple[int, int] | None
    hidden: tuple[int, ...]
    hidden_behind: int | None
    occluders: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def still(self) -> bool:
        return self.speed < 0.05

    @property
    def direction(self) -> str:
        """`left`, `right`, `up` or `down` when the displacement is clearly along that axis, else an empty string."""
        x, y = self.displacement
        if abs(x) > 25 and abs(x) > 2 * abs(y):
            return "right" if x > 0 else "left"
        if abs(y) > 25 and abs(y) > 2 * abs(x):
            return "down" if y > 0 else "up"
        return ""

    def displacement_along(self, direction: str) -> float:
        """The displacement's component along a direction, in pixels."""
        x, y = self.displacement
        return {"right": x, "left": -x, "down": y, "up": -y}[direction]


def scene_facts(scene: Scene, visible: np.ndarray, amodal: np.ndarray) -> list[ObjectFacts]:
    """The facts of every object of a scene.

    Args:
        visible, amodal: bool [T, K, H, W], masks with and without occlusion, in the scene's order of objects.
    """
    bits = np.packbits(amodal.reshape(*amodal.shape[:2], -1), axis=2)
    overlaps = np.bitwise_count(bits[:, :, None] & bits[:, None]).sum(3, dtype=np.int64)
    extents = overlaps.diagonal(axis1=1, axis2=2)
    areas = np.array([[np.count_nonzero(mask) for mask in frame] for frame in visible])
    return [_facts(scene, k, visible[:, k], areas[:, k], extents, overlaps) for k in range(len(scene.shapes))]


def _facts(
    scene: Scene, k: int, visible: np.ndarray, area: np.ndarray, extents: np.ndarray, overlaps: np.ndarray
) -> ObjectFacts:
    """`extents` [T, K]: areas of the amodal masks; `overlaps` int64 [T, K, K]: their pairwise intersections."""
    shape = scene.shapes[k]
    inside = extents[:, k] >= MIN_VISIBLE_PIXELS
    seen = area >= MIN_VISIBLE_PIXELS
    largest = max(int(extents[:, k].max()), 1)
    when = np.flatnonzero(inside)
    path = np.asarray(shape.path)
    steps = [float(np.hypot(*(path[t + 1] - path[t]))) for t in range(scene.frames - 1) if inside[t] and inside[t + 1]]
    displacement = path[when[-1]] - path[when[0]] if len(when) else np.zeros(2)
    gaps = np.flatnonzero(np.diff(when) > 1)
    hidden = np.flatnonzero((extents[:, k] > 0.5 * largest) & ~seen)
    return ObjectFacts(
        colour=shape.colour,
        shape=shape.shape,
        texture=shape.texture,
        radius=shape.radius,
        visible_ratio=tuple(round(float(a) / largest, 3) if ok else 0.0 for a, ok in zip(area, seen)),
        boxes=tuple(_box(visible[t]) if seen[t] else None for t in range(scene.frames)),
        displacement=(round(float(displacement[0]), 1), round(float(displacement[1]), 1)),
        speed=round(float(np.mean(steps)), 3) if steps else 0.0,
        circles=shape.movement == "circle",
        enters=int(when[0]) if len(when) and when[0] > 0 else None,
        leaves=int(when[-1]) if len(when) and when[-1] < scene.frames - 1 else None,
        absence=(int(when[gaps[0]]), int(when[gaps[0] + 1])) if len(gaps) else None,
        hidden=tuple(int(t) for t in hidden),
        hidden_behind=_occluder(overlaps[hidden], k, scene) if len(hidden) else None,
        occluders=tuple(
            j
            for j, other in enumerate(scene.shapes)
            if other.depth < shape.depth and (overlaps[:, j, k] > 0.1 * extents[:, k]).any()
        ),
    )


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _occluder(overlaps: np.ndarray, k: int, scene: Scene) -> int | None:
    """The nearer object that alone occludes most of object k while it is hidden; None when several do."""
    shared = [
        int(overlaps[:, j, k].sum()) if other.depth < scene.shapes[k].depth else 0
        for j, other in enumerate(scene.shapes)
    ]
    best = int(np.argmax(shared))
    return best if shared[best] > 0.8 * int(overlaps[:, k, k].sum()) else None
