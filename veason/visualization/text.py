"""Sharp text on pictures, by Pillow in the font that matplotlib ships (DejaVu Sans)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from veason.visualization.drawing import WHITE

PLATE = (20, 22, 26)
PLATE_OPACITY = 0.75


@lru_cache
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of `size` pixels: Latin, Greek, Cyrillic and symbols."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def write_label(picture: np.ndarray, text: str, corner: tuple[int, int], size: int | None = None) -> None:
    """Write text into the picture on a dark, translucent plate, moved into the picture where it would leave it.

    Args:
        picture: uint8 [H, W, 3] RGB, changed in place.
        corner: the plate's lower left, (x, y) in pixels.
        size: of the font in pixels; by default a 36th of the picture's shorter side, 11 at least.
    """
    height, width = picture.shape[:2]
    size = size or max(11, min(height, width) // 36)
    font, margin = load_font(size), max(2, size // 5)
    ascent, descent = font.getmetrics()
    right, bottom = round(font.getlength(text)) + 2 * margin, ascent + descent + margin
    left, top = max(0, min(corner[0], width - right)), max(0, min(corner[1] - bottom, height - bottom))
    region = picture[top : top + bottom, left : left + right]
    plate = (1 - PLATE_OPACITY) * region + PLATE_OPACITY * np.array(PLATE)
    written = Image.fromarray(plate.round().astype(np.uint8))
    ImageDraw.Draw(written).text((margin, margin // 2), text, font=font, fill=WHITE)
    region[:] = np.asarray(written)


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 2) -> list[str]:
    """Break text into at most `most` lines of up to `width` pixels; what does not fit ends in an ellipsis."""
    lines, words = [""], " ".join(text.split()).split(" ")
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    shown = lines[:most]
    if len(lines) > most:
        shown[-1] += "…"
    return [_shorten(line, font, width) for line in shown]


def _shorten(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A line of up to `width` pixels, its end cut off."""
    if font.getlength(line) <= width:
        return line
    kept: Sequence[str] = line.rstrip("…")
    while kept and font.getlength(f"{kept}…") > width:
        kept = kept[:-1]
    return f"{kept}…"
