"""How fast J, F, A and R are, against the field's way of computing them, on one core at 480 x 854.

    python -m benchmarks.segmentation_metrics

The plain way is written here as VISA's and DAVIS's code work, operation by operation: arrays of the whole frame, void
pixels where there are none, a dilation of each boundary by a disk over the whole frame, one frame after the other. Both
give the same numbers to the last bit, which is checked. Masks: two objects of middle size, as in most videos; small
ones; and large ones that fill the frame.
"""

from __future__ import annotations

import argparse
import platform
import timeit
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from veason.command_line import HelpFormatter
from veason.metrics import vos_metrics as metrics

TARGET = 10.0  # times the plain way, all four together, whatever the size of the objects
HEIGHT, WIDTH = 480, 854


def plain_jaccard(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    pred, true = pred.astype(bool), true.astype(bool)
    void = np.zeros_like(pred)
    inter = (pred & true & ~void).sum(axis=(1, 2))
    union = ((pred | true) & ~void).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return np.where(union == 0, 1.0, inter / union)


def plain_boundary_f(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    radius = int(np.ceil(metrics.BOUNDARY_TOLERANCE * np.hypot(*pred.shape[1:])))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    scores = []
    for p, g in zip(pred, true):
        void = np.zeros_like(p).astype(bool)
        p, g = (plain_boundary(mask * np.logical_not(void)) for mask in (p, g))
        near_p, near_g = (cv2.dilate(edge.astype(np.uint8), disk) for edge in (p, g))
        p_met, g_met, in_p, in_g = p * near_g, g * near_p, np.sum(p), np.sum(g)
        if not in_p or not in_g:
            scores.append(float(in_p == in_g))
            continue
        precision, recall = np.sum(p_met) / in_p, np.sum(g_met) / in_g
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return np.array(scores)


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    mask = mask.astype(bool)
    mask[mask > 0] = True
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    edge[-1], edge[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def plain_accuracy(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.array([np.mean(p == g) for p, g in zip(pred, true)])


def plain_robustness(pred: np.ndarray, true: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    return np.array([max(1 - ((1 - g) * p).sum() / (f.sum() + 1e-6), 0.0) for p, g, f in zip(pred, true, foreground)])


def make_masks(frames: int, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Two moving ellipses, predicted a few pixels off; uint8 [T, H, W] 0/1. `size` 1 is about 5 % of the frame."""
    pair = np.zeros((2, frames, HEIGHT, WIDTH), np.uint8)
    for masks, shift in zip(pair, (0, 3)):
        for t, mask in enumerate(masks):
            for centre, axes in (((300 + 3 * t, 240), (90, 60)), ((480, 250), (50, 50))):
                cv2.ellipse(
                    mask,
                    (centre[0] + shift, centre[1] + shift),
                    tuple(int(size * axis) for axis in axes),
                    20,
                    0,
                    360,
                    1,
                    -1,
                )
    return pair[0], pair[1]


def milliseconds(call: Callable[[], np.ndarray], frames: int, repeats: int) -> float:
    """Milliseconds per frame, the best of several runs."""
    return 1000 * min(timeit.repeat(call, number=1, repeat=repeats)) / frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--frames", type=int, default=20, help="frames of a video")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{HEIGHT} x {WIDTH}, one core of {platform.processor() or platform.machine()}, ms per frame: plain / ours\n")
    print("| objects | J | F | A | R | together |\n| --- | --- | --- | --- | --- | --- |")
    lowest = float("inf")
    for name, size in (("small", 0.3), ("middle", 1.0), ("fill the frame", 6.0)):
        pred, true = make_masks(options.frames, size)
        ways = tuple(
            (partial(plain, pred, true, *foreground), partial(ours, pred, true, *foreground))
            for plain, ours, foreground in (
                (plain_jaccard, metrics.jaccard, ()),
                (plain_boundary_f, metrics.boundary_f, ()),
                (plain_accuracy, metrics.accuracy, ()),
                (plain_robustness, metrics.robustness, (true,)),
            )
        )
        for plain, ours in ways:
            np.testing.assert_array_equal(plain(), ours())
        times = [[milliseconds(way, options.frames, options.repeats) for way in pair] for pair in ways]
        times.append([sum(column) for column in zip(*times)])
        print(
            f"| {name} | "
            + " | ".join(f"{plain:.3f} / {ours:.3f}: {plain / ours:.1f}x" for plain, ours in times)
            + " |",
            flush=True,
        )
        lowest = min(lowest, times[-1][0] / times[-1][1])
    verdict = "met" if lowest >= TARGET else "MISSED"
    print(f"\nat least {lowest:.1f} times as fast; target {TARGET:.0f}: {verdict}; equal to the last bit")


if __name__ == "__main__":
    main()
