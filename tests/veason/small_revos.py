"""A small ReVOS on disk."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH, FRAMES = 48, 80, 12


def rectangle(top, left, bottom, right):
    """uint8 [HEIGHT, WIDTH] with an inclusive rectangle."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : bottom + 1, left : right + 1] = 1
    return mask


def rle_json(mask):
    rle = coco.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def write_frames(folder, count, height=HEIGHT, width=WIDTH):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((height, width, 3), number * 10 % 256, np.uint8)).save(folder / f"{number:05d}.jpg")
    return [f"{number:05d}" for number in range(count)]


def track_masks():
    """The masks of two objects: "0" grows to the right from frame 2 on, "1" stands still in frames 0 to 5."""
    growing = [None if t < 2 else rectangle(4, 10, 20, 10 + t) for t in range(FRAMES)]
    still = [rectangle(30, 50, 39, 69) if t < 6 else None for t in range(FRAMES)]
    return {"0": growing, "1": still}


def write_revos(folder):
    """A ReVOS folder: video `a` of 12 frames with expressions of one object, two objects, and none; video `b` of 5
    frames.
    """
    root = folder / "ReVOS"
    frames = write_frames(root / "JPEGImages" / "a", FRAMES)
    tracks = {name: [m if m is None else rle_json(m) for m in track] for name, track in track_masks().items()}
    tracks["2"] = tracks["1"][:5]
    videos = {
        "a": {
            "vid_id": 0,
            "height": HEIGHT,
            "width": WIDTH,
            "frames": frames[::-1],  # a reader must sort
            "expressions": {
                "0": {"exp": "The growing box.", "obj_id": [0], "anno_id": [0], "type_id": 0},
                "1": {"exp": "both boxes", "obj_id": [0, 1], "anno_id": [0, 1], "type_id": 1},
                "2": {"exp": "a dog", "obj_id": [], "anno_id": [], "type_id": 2},
            },
        },
        "b": {
            "vid_id": 1,
            "height": HEIGHT,
            "width": WIDTH,
            "frames": write_frames(root / "JPEGImages" / "b", 5),
            "expressions": {"0": {"exp": "still", "obj_id": [0], "anno_id": [2], "type_id": 0}},
        },
    }
    for name in ("train", "valid"):
        (root / f"meta_expressions_{name}_.json").write_text(json.dumps({"videos": videos}))
    (root / "mask_dict.json").write_text(json.dumps(tracks))
    foreground = {
        "a": {"masks_rle": [rle_json(rectangle(0, 0, 40, 75))] * FRAMES},
        "b": {"masks_rle": [rle_json(rectangle(0, 0, 1, 1))] * 5},
    }
    (root / "mask_dict_foreground.json").write_text(json.dumps(foreground))
    return root


def edit(path, change):
    """Change the content of a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
