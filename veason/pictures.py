"""Draws boxes and masks on frames, strips of frames, and curves; for the audit, the teacher, reports and the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

Colour = tuple[int, int, int]

RED: Colour = (255, 0, 0)
# Distinct on most videos, in the order in which objects get them.
PALETTE = (
    (230, 57, 70),
    (42, 157, 244),
    (255, 190, 11),
    (60, 179, 113),
    (186, 85, 211),
    (255, 127, 80),
    (64, 224, 208),
    (199, 199, 199),
)


def draw_boxes(
    frame: np.ndarray, boxes: ArrayLike, colour: Colour = RED, thickness: int | None = None, label: str = ""
) -> np.ndarray:
    """A copy of the frame with the outline of each box.

    Args:
        frame: uint8 [H, W, 3] RGB.
        boxes: [K, 4] xyxy in pixels of the frame, corners inclusive; a box without extent ([0, 0, 0, 0]) is not drawn.
        colour: RGB.
        thickness: of the line in pixels; by default a 200th of the shorter side, 2 at least.
        label: written at each box's upper left corner.
    """
    out = np.ascontiguousarray(frame).copy()
    width = thickness or max(2, min(frame.shape[:2]) // 200)
    for x1, y1, x2, y2 in np.asarray(boxes, dtype=float).reshape(-1, 4).round().astype(int).tolist():
        if x2 > x1 and y2 > y1:
            cv2.rectangle(out, (x1, y1), (x2, y2), colour, width)
            if label:
                write_label(out, label, (x1, max(y1 - 4, 12)), colour)
    return out


def overlay_masks(
    frame: np.ndarray, masks: np.ndarray, opacity: float = 0.5, palette: Sequence[tuple[int, int, int]] = PALETTE
) -> np.ndarray:
    """A copy of the frame with each object tinted in a colour of its own, its outline in full colour.

    Args:
        frame: uint8 [H, W, 3] RGB.
        masks: [K, H, W] or [H, W] of the frame's size; every value but 0 is the object. Later objects lie over earlier
            ones.

    Raises:
        ValueError: the masks are not of the frame's size.
    """
    masks = np.asarray(masks)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.shape[1:] != frame.shape[:2]:
        raise ValueError(f"masks of {masks.shape[1:]} on a frame of {frame.shape[:2]} (height, width)")
    out = np.ascontiguousarray(frame).copy()
    for number, mask in enumerate(masks):
        inside, colour = mask != 0, palette[number % len(palette)]
        tint = (1 - opacity) * out[inside] + opacity * np.array(colour)
        out[inside] = tint.round().astype(np.uint8)
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, colour, 1)
    return out


def write_label(picture: np.ndarray, text: str, corner: tuple[int, int], colour: Colour = (255, 255, 255)) -> None:
    """Write text into the picture, with a dark outline; `corner` is the lower left of its first letter."""
    for stroke, width in (((0, 0, 0), 3), (colour, 1)):
        cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, stroke, width, cv2.LINE_AA)


def strip(
    frames: Sequence[np.ndarray], labels: Sequence[str] | None = None, height: int = 180, columns: int | None = None
) -> np.ndarray:
    """Frames side by side at one height, with a label in each; in several rows when `columns` is given.

    Args:
        frames: uint8 [H, W, 3] RGB each; sizes may differ.

    Returns:
        uint8 [rows * height, W, 3]; shorter rows are filled with white.
    """
    if not len(frames):
        raise ValueError("a strip needs at least one frame")
    cells = []
    for number, frame in enumerate(frames):
        width = max(1, round(frame.shape[1] * height / frame.shape[0]))
        shrinks = height < frame.shape[0]
        cell = cv2.resize(
            np.ascontiguousarray(frame), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        if labels is not None:
            write_label(cell, labels[number], (6, 16))
        cells.append(cell)
    step = columns or len(cells)
    rows = [np.concatenate(cells[start : start + step], axis=1) for start in range(0, len(cells), step)]
    widest = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(filled, axis=0)


def save_picture(path: str | PathLike[str], picture: np.ndarray) -> Path:
    """Write an RGB picture (PNG or JPEG by its suffix), making the folder; returns the path.

    Raises:
        OSError: the picture cannot be written there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"picture cannot be written: {path}")
    return path


def save_curves(
    path: str | PathLike[str],
    curves: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    xlabel: str = "step",
    ylabel: str = "",
    smooth: int = 1,
) -> Path:
    """Write a line plot.

    Args:
        curves: name -> values by step (from 1), or (steps, values). A value that is NaN leaves a gap.
        smooth: width in steps of a running mean; with more than 1 the raw values are drawn pale behind it.
    """
    # a figure of its own, not pyplot's: safe in threads and without a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
    for name, curve in curves.items():
        steps, values = curve if isinstance(curve, tuple) else (range(1, len(curve) + 1), curve)
        colour = axes.plot(steps, _running_mean(values, smooth), label=name)[0].get_color()
        if smooth > 1:
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of each value and up to width - 1 before it; NaN counts as missing."""
    series = np.asarray(values, dtype=float)
    windows = [series[max(0, end - width) : end] for end in range(1, len(series) + 1)]
    return np.array([np.nan if np.isnan(window).all() else np.nanmean(window) for window in windows])
