"""Pictures of rollouts as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 85  # of the JPEGs


def save_pictures(folder: Path, prefix: str, pictures: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, str]]:
    """Writes `<prefix>_<response>_<name>.jpg` for each picture of each response.

    Args:
        pictures: per response, name -> uint8 [H, W, 3] RGB.

    Returns:
        Per response, name -> file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: list[dict[str, str]] = []
    for number, of_response in enumerate(pictures):
        names.append({name: f"{prefix}_{number}_{name}.jpg" for name in of_response})
        for name, picture in of_response.items():
            Image.fromarray(picture).save(folder / names[-1][name], quality=QUALITY)
    return names
