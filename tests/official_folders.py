"""Small folders in exactly the shapes of the official downloads, as the named repositories read and write them.

Four frames of 48 x 80 pixels a video; object 1 moves to the right, object 2 shrinks.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH, FRAMES = 48, 80, 4
NAMES = [f"{t:05d}" for t in range(FRAMES)]


def rectangle(top, left, bottom, right):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : bottom + 1, left : right + 1] = 1
    return mask


MOVING = [rectangle(2, 3 + 4 * t, 12, 20 + 4 * t) for t in range(FRAMES)]
SHRINKING = [rectangle(30, 40, 40, 60 - t) for t in range(FRAMES)]
OBJECTS = {1: MOVING, 2: SHRINKING}


def rle(mask):
    found = coco.encode(np.asfortranarray(mask))
    return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}


def write_json(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_frames(folder: Path, names=NAMES):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), number * 10, np.uint8)).save(folder / f"{name}.jpg")


def write_pngs(folder: Path, masks, names=NAMES):
    folder.mkdir(parents=True)
    for name, mask in zip(names, masks):
        Image.fromarray(mask).save(folder / f"{name}.png")


def numbered():
    """PNGs of object numbers."""
    return [MOVING[t] + 2 * SHRINKING[t] for t in range(FRAMES)]


def revos(root: Path):
    """github.com/cilinyan/ReVOS-api (README) and VISA's utils/d2_datasets/mevis_utils.py, tools/eval_revos.py: ids are
    numbers, mask_dict.json has texts as keys, a video's name may hold folders, absent targets have type_id 2.
    """
    video = "TAO/frames/v1"
    write_frames(root / "JPEGImages" / video)
    expressions = {
        "0": {"exp": "The moving box.", "obj_id": [0], "anno_id": [5], "type_id": 0},
        "1": {"exp": "both boxes", "obj_id": [0, 1], "anno_id": [5, 6], "type_id": 1},
        "2": {"exp": "a dog", "obj_id": [], "anno_id": [], "type_id": 2},
    }
    meta = {"expressions": expressions, "vid_id": 7, "frames": NAMES, "height": HEIGHT, "width": WIDTH}
    for split in ("train", "valid"):
        write_json(root / f"meta_expressions_{split}_.json", {"videos": {video: meta}})
    write_json(root / "mask_dict.json", {"5": [rle(m) for m in MOVING], "6": [rle(m) for m in SHRINKING]})
    foreground = [rle(np.maximum(a, b)) for a, b in zip(MOVING, SHRINKING)]
    write_json(root / "mask_dict_foreground.json", {video: {"masks_rle": foreground}})


def reasonvos(root: Path):
    """github.com/showlab/VideoLISA, benchmark_check.py and evaluation/reason_vos: a list of {obj_id, exp_id, exp_text,
    is_sent}, exp_id again for another object, one folder of PNGs for each object.
    """
    write_frames(root / "JPEGImages" / "v1")
    expressions = [
        {"obj_id": number, "exp_id": exp_id, "exp_text": f"question {exp_id} about {number}", "is_sent": exp_id == 0}
        for number in OBJECTS
        for exp_id in range(2)
    ]
    meta = {"source": "BURST", "frames": NAMES, "expressions": expressions}
    write_json(root / "meta_expressions.json", {"videos": {"v1": meta}})
    for number, masks in OBJECTS.items():
        write_pngs(root / "Annotations" / f"BURST_v1_{number}", [mask * 255 for mask in masks])


def mevis(root: Path):
    """github.com/henghuiding/MeViS (README, lmpm/data/datasets/mevis.py): no size in the annotation, ids as numbers,
    the split `valid` without masks.
    """
    for split in ("valid_u", "valid"):
        write_frames(root / split / "JPEGImages" / "v1")
        known = {"obj_id": [0, 1], "anno_id": [5, 6]} if split == "valid_u" else {}
        meta = {"expressions": {"0": {"exp": "both move", **known}}, "vid_id": 0, "frames": NAMES}
        write_json(root / split / "meta_expressions.json", {"videos": {"v1": meta}})
    tracks = {"5": [rle(m) for m in MOVING], "6": [None, *(rle(m) for m in SHRINKING[1:])]}
    write_json(root / "valid_u" / "mask_dict.json", tracks)


def _referring(root: Path, split: str, expressions: dict):
    meta = {"v1": {"expressions": expressions, "frames": NAMES}}
    write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": meta})
    write_frames(root / split / "JPEGImages" / "v1")


YTVOS = {"0": {"exp": "one", "obj_id": "1"}, "1": {"exp": "two", "obj_id": "2"}}
DAVIS = {str(n): {"exp": f"text {n}", "obj_id": str(n // 4 + 1)} for n in range(8)}


def refytvos(root: Path):
    """The challenge's folder, as VISA's utils/d2_datasets/refytvos_utils.py reads it: masks of `train` alone."""
    _referring(root, "train", YTVOS)
    write_pngs(root / "train" / "Annotations" / "v1", numbered())
    write_json(root / "train" / "meta.json", {"videos": {"v1": {"objects": {"1": {"category": "dog"}}}}})
    write_json(
        root / "meta_expressions" / "valid" / "meta_expressions.json",
        {"videos": {"v2": {"expressions": {"0": {"exp": "three"}}, "frames": NAMES}}},
    )
    write_frames(root / "valid" / "JPEGImages" / "v2")


def refdavis17(root: Path):
    """As github.com/showlab/VideoLISA, evaluation/refdavis, reads it: four descriptions an object, in order."""
    _referring(root, "valid", DAVIS)
    write_pngs(root / "valid" / "Annotations" / "v1", numbered())


def _visa_pickle(path: Path, expressions: dict):
    """As VISA's refytvos_utils.py encodes masks and numbers expressions: by sorted exp_id; absent is None."""
    tracks = {}
    for number, exp_id in enumerate(sorted(expressions)):
        masks = OBJECTS[int(expressions[exp_id]["obj_id"])]
        tracks[str(number)] = [coco.encode(np.asfortranarray(mask)) if mask.any() else None for mask in masks]
    path.write_bytes(pickle.dumps(tracks))


def visa_refytvos(root: Path):
    """VISA's README: train/mask_dict.pkl and no PNGs."""
    expressions = {str(n): {"exp": f"text {n}", "obj_id": str(n % 2 + 1)} for n in range(12)}  # "10" before "2"
    _referring(root, "train", expressions)
    _visa_pickle(root / "train" / "mask_dict.pkl", expressions)


def visa_davis17(root: Path):
    """VISA's README: {train,valid}/mask_dict.pkl and no PNGs."""
    _referring(root, "valid", DAVIS)
    _visa_pickle(root / "valid" / "mask_dict.pkl", DAVIS)


def vicas(root: Path):
    """github.com/Ali2500/ViCaS (README, vicas/dataset.py, vicas/preprocess/video_to_frames.sh): annotations from the
    hub, frames %05d.jpg at 30 per second, splits that lie in the GitHub repository (copied here).
    """
    write_frames(root / "video_frames" / "000012")
    entries = [
        {
            "filename": f"{name}.jpg",
            "is_gt": t % 2 == 0,
            "track_ids": [1, 2],
            "mask_rles": [rle(MOVING[t]), rle(SHRINKING[t])],
        }
        for t, name in enumerate(NAMES)
    ]
    content = {
        "video_id": 12,
        "src_dataset": "oops",
        "filename": "000012_title.mp4",
        "image_size": [HEIGHT, WIDTH],
        "object_referrals": [{"prompt": "first", "track_ids": [1]}, {"prompt": "the pair", "track_ids": [2, 1]}],
        "segmentations": entries,
        "all_track_ids": [1, 2],
    }
    write_json(root / "annotations" / "v1.0" / "000012.json", content)
    write_json(root / "splits" / "v1.0" / "val.json", [12])


# name -> (writer, benchmark, split that is scored)
FOLDERS = {
    "revos": (revos, "revos", "valid"),
    "reasonvos": (reasonvos, "reasonvos", "test"),
    "mevis": (mevis, "mevis", "valid_u"),
    "refytvos": (refytvos, "refytvos", "train"),
    "refdavis17": (refdavis17, "refdavis17", "valid"),
    "visa_refytvos": (visa_refytvos, "refytvos", "train"),
    "visa_davis17": (visa_davis17, "refdavis17", "valid"),
    "vicas": (vicas, "vicas", "val"),
}
