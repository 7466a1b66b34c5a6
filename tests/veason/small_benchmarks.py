"""One small data set on disk per layout, written by hand as its authors document it."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from tests.veason.small_revos import HEIGHT, WIDTH, rectangle, rle_json, write_frames

MASKS = np.stack([rectangle(2, 3 + t, 12, 20 + t) for t in range(4)])  # [4, H, W]
OTHER = np.stack([rectangle(30, 40, 40, 60 - t) for t in range(4)])


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_pngs(folder, values):
    folder.mkdir(parents=True)
    for t, frame in enumerate(values):
        Image.fromarray(frame).save(folder / f"{t:05d}.png")


def numbered():
    """Object numbers 1 and 2 in one picture, uint8 [4, H, W]."""
    return MASKS + 2 * OTHER


def write_mevis(folder):
    root = folder / "mevis"
    for split in ("valid_u", "valid"):
        frames = write_frames(root / split / "JPEGImages" / "v", 4)
        known = {"obj_id": [0, 1], "anno_id": [7, 8]} if split == "valid_u" else {}
        write_json(
            root / split / "meta_expressions.json",
            {"videos": {"v": {"frames": frames, "expressions": {"0": {"exp": "both", **known}}}}},
        )
    tracks = {"7": [rle_json(mask) for mask in MASKS], "8": [rle_json(mask) for mask in OTHER]}
    write_json(root / "valid_u" / "mask_dict.json", tracks)
    return root


def write_reasonvos(folder):
    root = folder / "ReasonVOS"
    frames = write_frames(root / "JPEGImages" / "v", 4)
    listed = [
        {"obj_id": 3, "exp_id": 0, "exp_text": "which one?", "is_sent": True},
        {"obj_id": 5, "exp_id": 0, "exp_text": "which else?", "is_sent": True},
    ]
    video = {"source": "burst", "frames": frames, "expressions": listed}
    write_json(root / "meta_expressions.json", {"videos": {"v": video}})
    write_pngs(root / "Annotations" / "burst_v_3", MASKS * 255)
    write_pngs(root / "Annotations" / "burst_v_5", OTHER)
    return root


def write_refytvos(folder):
    root = folder / "ytvos"
    for split, video in (("train", "v"), ("valid", "w"), ("valid", "hidden")):
        write_frames(root / split / "JPEGImages" / video, 4)
    frames = [f"{t:05d}" for t in range(4)]
    train = {
        "v": {"frames": frames, "expressions": {"0": {"exp": "one", "obj_id": "1"}, "1": {"exp": "two", "obj_id": "2"}}}
    }
    valid = {video: {"frames": frames, "expressions": {"0": {"exp": "x"}}} for video in ("w", "hidden")}
    write_json(root / "meta_expressions" / "train" / "meta_expressions.json", {"videos": train})
    write_json(root / "meta_expressions" / "valid" / "meta_expressions.json", {"videos": valid})
    write_json(root / "meta_expressions" / "test" / "meta_expressions.json", {"videos": {"hidden": valid["hidden"]}})
    write_pngs(root / "train" / "Annotations" / "v", numbered())
    return root


def write_refdavis17(folder):
    root = folder / "davis"
    frames = write_frames(root / "valid" / "JPEGImages" / "v", 4)
    expressions = {str(n): {"exp": f"text {n}", "obj_id": str(n // 4 + 1)} for n in range(8)}
    write_json(
        root / "meta_expressions" / "valid" / "meta_expressions.json",
        {"videos": {"v": {"frames": frames, "expressions": expressions}}},
    )
    write_pngs(root / "valid" / "Annotations" / "v", numbered())
    return root


def write_vicas(folder):
    root = folder / "ViCaS"
    write_frames(root / "video_frames" / "000012", 7)
    entries = []
    for frame in range(7):  # people annotated 0, 2, 4, 6; a tracker the others
        t = frame // 2
        tracks = [5] if frame == 4 else [5, 9]  # object 9 is out of view in frame 4
        rles = [rle_json(mask) for mask in (MASKS[t], OTHER[t])][: len(tracks)]
        entries.append(
            {"filename": f"{frame:05d}.jpg", "is_gt": frame % 2 == 0, "track_ids": tracks, "mask_rles": rles}
        )
    referrals = [{"prompt": "the first", "track_ids": [5]}, {"prompt": "the pair", "track_ids": [9, 5]}]
    content = {
        "video_id": 12,
        "image_size": [HEIGHT, WIDTH],
        "object_referrals": referrals,
        "segmentations": entries[::-1],
    }
    write_json(root / "annotations" / "v0.1" / "000012.json", content)
    write_json(root / "splits" / "v0.1" / "val.json", [12])
    return root
