"""Small data sets in the files that the newer benchmarks' authors publish, with random masks, and random predictions.

All numbers come from `RandomState`, whose stream never changes: the golden values in golden/benchmarks.json were made
by the authors' own code on these files.
"""

from __future__ import annotations

import json

import cv2
import numpy as np

from tests.veason.small_revos import HEIGHT, WIDTH, rle_json, write_frames
from veason.data import open_benchmark


def write_json(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))


def blobs(rng, frames, hidden=()):
    """Random masks, uint8 [frames, HEIGHT, WIDTH], without a pixel in the hidden frames."""
    coarse = (rng.random_sample((frames, HEIGHT // 8, WIDTH // 8)) > 0.6).astype(np.uint8)
    masks = np.kron(coarse, np.ones((1, 8, 8), np.uint8))
    masks[list(hidden)] = 0
    return masks


def write_long_rvos(folder):
    """valid: two videos, an object that is out of view for a while; test: no masks."""
    root, rng = folder / "long_rvos", np.random.RandomState(1)
    types = ("static", "dynamic", "static+dynamic")
    videos = {}
    for video in ("v", "w"):
        frames = write_frames(root / "valid" / "JPEGImages" / video, 6)
        for object_id, hidden in (("1", (0, 4)), ("12", ())):
            target = root / "valid" / "Annotations" / video / object_id
            target.mkdir(parents=True)
            for frame, mask in zip(frames, blobs(rng, 6, hidden)):
                if mask.any():
                    cv2.imwrite(str(target / f"{frame}.png"), mask * 255)
        expressions = {
            str(n): {"exp": f"text {n}", "obj_id": ("1", "12")[n % 2], "type": types[n % 3]} for n in range(6)
        }
        videos[video] = {"frames": frames, "expressions": expressions}
    write_json(root / "valid" / "meta_expressions.json", {"videos": videos})
    frames = write_frames(root / "test" / "JPEGImages" / "x", 2)
    hidden = {"x": {"frames": frames, "expressions": {"0": {"exp": "text", "obj_id": "1", "type": "static"}}}}
    write_json(root / "test" / "meta_expressions.json", {"videos": hidden})
    return root


def write_tracks(path, rng, count, frames):
    write_json(
        path,
        {
            str(number): [rle_json(mask) if mask.any() else None for mask in blobs(rng, frames, (number % frames,))]
            for number in range(count)
        },
    )


def write_ref_sav(folder):
    root, rng = folder / "ref_sav_eval", np.random.RandomState(2)
    frames = write_frames(root / "videos" / "sav_000001", 5)
    expressions = {
        str(n): {"exp": f"text {n}", "obj_id": [n // 2], "anno_id": [n // 2], "type_id": n % 2} for n in range(6)
    }
    meta = {"frames": frames, "height": HEIGHT, "width": WIDTH, "expressions": expressions}
    write_json(root / "meta_expressions_valid.json", {"videos": {"sav_000001": meta}})
    write_tracks(root / "mask_dict.json", rng, 3, 5)
    return root


def write_mevis2(folder):
    """valid_u: one object, two objects that overlap, and no target; valid: the server's."""
    root, rng = folder / "mevis", np.random.RandomState(3)
    targets = {"0": [0], "1": [0, 1], "2": [], "3": [], "4": [1]}
    for split in ("valid_u", "valid"):
        frames = write_frames(root / split / "JPEGImages" / "v", 4)
        shown = {
            n: {"exp": f"text {n}", **({"obj_id": ids, "anno_id": ids} if split == "valid_u" else {})}
            for n, ids in targets.items()
        }
        write_json(root / split / "meta_expressions.json", {"videos": {"v": {"frames": frames, "expressions": shown}}})
    write_tracks(root / "valid_u" / "mask_dict.json", rng, 2, 4)
    return root


def write_groundmore(folder):
    """A clip from 0:58 to 1:04 with 36 frames; in the last ones no object has a mask."""
    root, rng, video = folder / "groundmore", np.random.RandomState(4), "match_a_0058_0104"
    place = root / "annotations" / video
    write_frames(place / "images", 36)
    (place / "masks").mkdir()
    first, second = blobs(rng, 33), blobs(rng, 33)
    for t, values in enumerate(np.where(first != 0, 1, 2 * second).astype(np.uint8)):
        cv2.imwrite(str(place / "masks" / f"frame_{t:06d}.png"), values)
    times = {"action_start": "00:59", "action_end": "1:03"}
    kinds = ("Causal", "Sequential", "Counterfactual", "Descriptive")
    questions = {
        str(n): {"question": f"who {n}?", "answer": "x", "obj_id": str(1 + n % 2), "q_type": kinds[n % 4], **times}
        for n in range(5)
    }
    questions["4"]["action_end"] = "01:04"
    write_json(root / "test_v2.json", {"videos": {video: {"questions": questions}}})
    return root


def write_reasonseg(folder):
    """Images with several polygons, ignored regions over and under targets, no target, and an old encoding."""
    root, rng = folder / "ReasonSeg", np.random.RandomState(5)
    for split in ("val", "train"):
        for number in range(4):
            write_frames(root / split / "tmp", 1)
            (root / split / "tmp" / "00000.jpg").rename(root / split / f"image_{number}.jpg")
            (root / split / "tmp").rmdir()
            shapes = [
                {"label": label, "points": (rng.random_sample((5, 2)) * (WIDTH - 1, HEIGHT - 1)).tolist()}
                for label in ("target", "ignore", "target", "Ignore region", "flag")
            ]
            texts = ["where is the café?", "what else?"]
            content = {"text": texts, "is_sentence": number % 2 == 0, "shapes": shapes if number < 3 else shapes[1:2]}
            write_json(root / split / f"image_{number}.json", content, "cp1252" if number == 1 else "utf-8")
    return root


WRITERS = {
    "long_rvos": write_long_rvos,
    "ref_sav": write_ref_sav,
    "mevis2": write_mevis2,
    "groundmore": write_groundmore,
    "reasonseg": write_reasonseg,
}


def write_predictions(name, root, folder):
    """Random predictions of every sample of the main split, at <sample_id>/<frame>.png; some of them empty.

    Returns:
        sample_id -> uint8 [T, H, W], 0 or 255.
    """
    predictions = {}
    for number, sample in enumerate(open_benchmark(name, root).samples):
        frames = len(sample.frames)
        hidden = range(frames) if number % 4 == 3 else range(min(number % 3, frames // 2))
        predictions[sample.sample_id] = masks = blobs(np.random.RandomState(100 + number), frames, hidden) * 255
        target = folder / sample.sample_id
        target.mkdir(parents=True)
        for frame, mask in zip(sample.frames, masks):
            cv2.imwrite(str(target / f"{frame}.png"), mask)
    return predictions
