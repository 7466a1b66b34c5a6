"""Pictures of unknown origin: masks as PNGs, and frames in any format."""

from __future__ import annotations

from os import PathLike

import numpy as np
from PIL import Image

from veason.errors import DataError

NUMBERS = ("1", "L", "P", "I", "I;16")  # modes of pictures whose pixels hold one number
ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def read_object_numbers(path: str | PathLike[str]) -> np.ndarray:
    """The number of each pixel of a PNG mask, int [H, W]: grey values, or indices of a palette.

    Raises:
        DataError: the file is missing, cannot be read, or has colours without a palette, which are no numbers.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.mode in NUMBERS:
                return np.asarray(picture.convert("L") if picture.mode == "1" else picture)
            values = np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"mask is missing: {path}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"mask cannot be read: {path} ({error})") from error
    if (values != values[..., :1]).any():
        raise DataError(
            f"{path} is a picture in colours; a mask is a PNG with a palette or grey values, which number the objects"
        )
    return values[..., 0]


def is_upright_jpeg(path: str | PathLike[str]) -> bool:
    """Whether a picture can be copied as it is: a JPEG in grey or RGB that no EXIF tag turns.

    Raises:
        DataError: no picture.
    """
    try:
        with Image.open(path) as picture:
            if picture.format != "JPEG" or picture.mode not in ("RGB", "L"):
                return False
            return picture.getexif().get(ORIENTATION, 1) == 1
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"frame cannot be read: {path} ({error})") from error
