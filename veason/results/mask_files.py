"""Masks of a prediction as files: PNGs of the union and of object numbers, their archive, and COCO's JSON."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from veason import masks as rle_masks
from veason.masks import Rle
from veason.visualization.drawing import PALETTE

Tracks = Sequence[Sequence[Rle]]  # per object its mask in every frame


def object_masks(tracks: Tracks, index: int, size: tuple[int, int]) -> np.ndarray:
    """bool [K, H, W], the objects in one frame of height and width `size`."""
    decoded = [rle_masks.decode(track[index]).astype(bool) for track in tracks]
    return np.stack(decoded) if decoded else np.zeros((0, *size), bool)


def union_mask(tracks: Tracks, index: int, size: tuple[int, int]) -> np.ndarray:
    """bool [H, W], the union of the objects in one frame."""
    return np.any(object_masks(tracks, index, size), axis=0, keepdims=True)[0]


def write_masks(folder: Path, tracks: Tracks, names: Sequence[str], size: tuple[int, int]) -> list[Rle]:
    """Write masks/<name>.png (0 and 255), objects/<name>.png (object numbers; where there are several), masks.zip.

    Args:
        names: of the frames.

    Returns:
        The unions of the objects, one a frame.
    """
    unions = []
    kinds = ["masks", "objects"] if len(tracks) > 1 else ["masks"]
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "masks.zip", "w") as archive:
        for index, frame in enumerate(names):
            union = union_mask(tracks, index, size)
            unions.append(rle_masks.encode(union))
            for kind in kinds:
                name = f"{kind}/{frame}.png"
                content = mask_png(union) if kind == "masks" else number_png(object_masks(tracks, index, size))
                (folder / name).write_bytes(content)
                archive.writestr(name, content)
    return unions


def coco_content(tracks: Tracks, names: Sequence[str], size: tuple[int, int], category: str) -> dict[str, Any]:
    """Images, annotations and one category, as COCO's files have them; an annotation for each object and frame.

    `track_id` is the object's number from 1, as in COCO's video variants.
    """
    annotations = []
    for number, track in enumerate(tracks):
        for index, rle in enumerate(track):
            if extent := rle_masks.box(rle):
                left, top, right, bottom = extent
                annotations.append(
                    {
                        "id": number * len(names) + index + 1,
                        "image_id": index,
                        "category_id": 1,
                        "track_id": number + 1,
                        "segmentation": rle_masks.as_json(rle),
                        "area": rle_masks.area(rle),
                        "bbox": [left, top, right - left + 1, bottom - top + 1],
                        "iscrowd": 0,
                    }
                )
    height, width = size
    images = [
        {"id": index, "file_name": f"{name}.png", "height": height, "width": width} for index, name in enumerate(names)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": category}]}


def mask_png(mask: np.ndarray) -> bytes:
    """A mask [H, W] as a PNG of 0 and 255."""
    return _to_png(Image.fromarray(mask.astype(np.uint8) * 255))


def number_png(objects: np.ndarray) -> bytes:
    """Masks bool [K, H, W] as a palette PNG of object numbers, 0 where there is none; later ones lie over earlier."""
    numbers = np.zeros(objects.shape[1:], np.uint8)
    for number, mask in enumerate(objects):
        numbers[mask] = number + 1
    picture = Image.fromarray(numbers).convert("P")
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(objects))]
    picture.putpalette([0, 0, 0, *(channel for colour in colours for channel in colour)])
    return _to_png(picture)


def _to_png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
