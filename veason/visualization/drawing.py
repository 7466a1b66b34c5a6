"""Draws boxes, masks and labels on frames, and strips of frames; for the audit, the teacher, reports and the demo.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which colour-blind people tell apart.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

RED: Colour = (255, 0, 0)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
PREDICTED_COLOUR: Colour = (240, 160, 0)  # orange
TRUE_COLOUR: Colour = (86, 190, 245)  # sky blue
# In the order in which objects get them.
PALETTE = (
    (240, 160, 0),
    (86, 190, 245),
    (204, 121, 167),
    (240, 228, 66),
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
    (199, 199, 199),
)
FONT_SIZE = 15  # pixels
ENCODERS = {".jpg": ("image/jpeg", cv2.IMWRITE_JPEG_QUALITY), ".webp": ("image/webp", cv2.IMWRITE_WEBP_QUALITY)}


def draw_boxes(frame: np.ndarray, boxes: ArrayLike, colour: Colour = RED) -> np.ndarray:
    """A copy of the frame with the outline of each box, a 200th of the shorter side wide, 2 pixels at least.

    Args:
        frame: uint8 [H, W, 3] RGB.
        boxes: [K, 4] xyxy in pixels of the frame, corners inclusive; a box without extent ([0, 0, 0, 0]) is not drawn.
        colour: RGB.
    """
    out = np.ascontiguousarray(frame).copy()
    width = max(2, min(frame.shape[:2]) // 200)
    for x1, y1, x2, y2 in np.asarray(boxes, dtype=float).reshape(-1, 4).round().astype(int).tolist():
        if x2 > x1 and y2 > y1:
            cv2.rectangle(out, (x1, y1), (x2, y2), colour, width)
    return out


def overlay_masks(
    frame: np.ndarray, masks: np.ndarray, opacity: float = 0.5, palette: Sequence[Colour] = PALETTE
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
        cv2.drawContours(out, _outlines(inside), -1, colour, 1)
    return out


def draw_outline(frame: np.ndarray, mask: np.ndarray, colour: Colour) -> np.ndarray:
    """A copy of the frame with the outline of a mask, in a dark border so that it is seen on any ground.

    Args:
        frame: uint8 [H, W, 3] RGB.
        mask: [H, W]; every value but 0 is the object.
    """
    out = np.ascontiguousarray(frame).copy()
    width = max(2, min(frame.shape[:2]) // 160)
    for stroke, thickness in ((BLACK, width + 2), (colour, width)):
        cv2.drawContours(out, _outlines(np.asarray(mask) != 0), -1, stroke, thickness)
    return out


def frame_strip(
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
        cell = resize_to_height(frame, height)
        if labels is not None:
            drawn = Image.fromarray(cell)
            style = {"fill": WHITE, "font": _font(), "stroke_width": 2, "stroke_fill": BLACK}
            ImageDraw.Draw(drawn).text((6, 4), labels[number], **style)
            cell = np.asarray(drawn)
        cells.append(cell)
    step = columns or len(cells)
    rows = [np.concatenate(cells[start : start + step], axis=1) for start in range(0, len(cells), step)]
    widest = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(filled, axis=0)


def resize_to_height(picture: np.ndarray, height: int, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """A frame or a mask at a height; with cv2.INTER_LINEAR by area where it is reduced."""
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    if interpolation == cv2.INTER_LINEAR and height < picture.shape[0]:
        interpolation = cv2.INTER_AREA
    source = picture.astype(np.uint8) if picture.dtype == bool else np.ascontiguousarray(picture)
    return cv2.resize(source, (width, height), interpolation=interpolation)


def picture_url(picture: np.ndarray, suffix: str = ".jpg", quality: int = 75) -> str:
    """An RGB picture, uint8 [H, W, 3], as a data URL of a JPEG (`.jpg`) or a WebP (`.webp`)."""
    kind, option = ENCODERS[suffix]
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [option, quality])
    return data_url(encoded.tobytes(), kind)


def data_url(content: bytes, kind: str) -> str:
    """A file's content as a data URL; `kind` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def add_title(picture: np.ndarray, title: str, legend: Sequence[tuple[str, Colour]] = ()) -> np.ndarray:
    """The picture below a white band with a title and, for each colour, what it shows; a long title is cut."""
    entries = [(title, None), *legend]
    font, gap, square, x = _font(), 14, 12, 6
    widths = [font.getlength(text) + (square + 5 if colour else 0) + gap for text, colour in entries]
    rows, row_of, right = 1, [], float(x)
    for width in widths:  # what does not fit goes to the next row
        if right > x and right + width > picture.shape[1]:
            rows, right = rows + 1, float(x)
        row_of.append((rows - 1, right))
        right += width
    line = FONT_SIZE + 7
    band = Image.new("RGB", (picture.shape[1], line * rows + 2), WHITE)
    draw = ImageDraw.Draw(band)
    for (text, colour), (row, left) in zip(entries, row_of):
        if colour:
            top = line * row + 6
            draw.rectangle((left, top, left + square, top + square), fill=colour, outline=BLACK)
            left += square + 5
        draw.text((left, line * row + 3), text, fill=BLACK, font=font)
    return np.concatenate([np.asarray(band), picture], axis=0)


def save_picture(path: str | PathLike[str], picture: np.ndarray) -> Path:
    """Writes an RGB picture (PNG or JPEG by its suffix), making the folder; returns the path. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"picture cannot be written: {path}")
    return path


def _outlines(inside: np.ndarray) -> Sequence[np.ndarray]:
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return outlines


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
