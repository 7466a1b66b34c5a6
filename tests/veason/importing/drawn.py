"""A small source on disk in each of the forms: one video of a square that moves, two of folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.real_clips import write_video
from veason import masks
from veason.importing.import_command import main

HEIGHT, WIDTH, FRAMES = 48, 64, 12
VIDEOS = ("a", "b")


def square(video: str, number: int, t: int) -> np.ndarray | None:
    """uint8 [H, W]: object 1 moves to the right; object 2 is absent from frame 6 on."""
    if number == 2 and t >= 6:
        return None
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    left = 2 + 3 * t + 5 * (video == "b") if number == 1 else 40
    mask[4 + 24 * (number - 1) : 20 + 24 * (number - 1), left : left + 12] = 1
    return mask


def picture(video: str, t: int) -> np.ndarray:
    """uint8 [H, W, 3]."""
    frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for number, colour in ((1, (200, 40, 40)), (2, (40, 40, 200))):
        if (mask := square(video, number, t)) is not None:
            frame[mask != 0] = colour
    return frame


def write_pictures(folder: Path, suffix: str = "jpg", names: str = "{}") -> None:
    """Both videos as folders of pictures; by default 0.jpg, 1.jpg, ..., 11.jpg, whose natural order is not that of
    their names.
    """
    for video in VIDEOS:
        (folder / video).mkdir(parents=True)
        for t in range(FRAMES):
            Image.fromarray(picture(video, t)).save(folder / video / f"{names.format(t)}.{suffix}", quality=95)


def numbers(video: str, t: int) -> np.ndarray:
    """The object number of each pixel, uint8 [H, W]."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in (1, 2):
        if (mask := square(video, number, t)) is not None:
            found[mask != 0] = number
    return found


def write_png_source(folder: Path, frames: range = range(FRAMES), palette: bool = True) -> Path:
    """(b) JPEGImages and Annotations."""
    write_pictures(folder / "JPEGImages")
    for video in VIDEOS:
        (folder / "Annotations" / video).mkdir(parents=True)
        for t in frames:
            mask = Image.fromarray(numbers(video, t))
            if palette:
                mask = mask.copy()
                mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])  # the picture's mode is now P
            mask.save(folder / "Annotations" / video / f"{t}.png")
    return folder


def rle(video: str, number: int, t: int) -> dict | None:
    mask = square(video, number, t)
    return None if mask is None else masks.as_json(masks.encode(mask))


def polygon(video: str, number: int, t: int) -> list[float] | None:
    """The corners of a square as COCO rounds them: its pixels from left to right - 1."""
    mask = square(video, number, t)
    if mask is None:
        return None
    rows, columns = np.nonzero(mask)
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [float(side) for side in (x1, y1, x2, y1, x2, y2, x1, y2)]


def write_coco_source(
    folder: Path, frames: range = range(FRAMES), video_files: bool = False, tracks: bool = True
) -> Path:
    """(a) annotations.json: object 1 as a polygon, object 2 as an RLE."""
    if video_files:
        for video in VIDEOS:
            write_video(folder / f"{video}.mp4", [picture(video, t) for t in range(FRAMES)], rate=4)
    else:
        write_pictures(folder)
    images, annotations = [], []
    for video in VIDEOS:
        for t in frames:
            images.append({"id": len(images), "file_name": f"{video}/{t}.jpg", "height": HEIGHT, "width": WIDTH})
            for number in (1, 2):
                if square(video, number, t) is None:
                    continue
                shape = [polygon(video, 1, t)] if number == 1 else rle(video, 2, t)
                annotation = {"id": len(annotations), "image_id": images[-1]["id"], "category_id": number}
                track = {"attributes": {"track_id": number}} if tracks else {}
                annotations.append({**annotation, "segmentation": shape, **track})
    categories = [{"id": 1, "name": "red square"}, {"id": 2, "name": "blue square"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def captions(folder: Path) -> Path:
    path = folder / "captions.json"
    texts = {video: {"1": ["the red square", "what moves"], "2": "the blue square"} for video in VIDEOS}
    path.write_text(json.dumps(texts))
    return path


def write_jsonl_source(folder: Path, frames: range = range(FRAMES), key: str = "masks") -> Path:
    """(c) lines.jsonl beside the pictures."""
    write_pictures(folder)
    lines = []
    for video in VIDEOS:
        for number, text in ((1, "the red square"), (2, "the blue square")):
            entries = {str(t): rle(video, number, t) if key == "masks" else box(video, number, t) for t in frames}
            lines.append({"video": video, "expression": text, "object": str(number), key: entries})
        lines.append({"video": video, "expression": "both squares", "type": "reasoning", "objects": ["1", "2"]})
        lines.append({"video": video, "expression": "a cat", "type": "absent"})
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder / "lines.jsonl"


def box(video: str, number: int, t: int) -> list[int] | None:
    """x1, y1, x2, y2, where the last column and row are x2 - 1 and y2 - 1."""
    mask = square(video, number, t)
    if mask is None:
        return None
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def run(*arguments: object) -> int:
    """`veason data import`; the exit status."""
    try:
        return main([str(each) for each in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def read_set(output: Path) -> dict[str, dict]:
    """Video -> its entry of the annotation files."""
    found = {}
    for split in ("train", "valid"):
        path = output / f"meta_expressions_{split}_.json"
        if path.is_file():
            found |= json.loads(path.read_text())["videos"]
    return found


def read_tracks(output: Path) -> dict[str, list[np.ndarray | None]]:
    """Annotation id -> masks."""
    content = json.loads((output / "mask_dict.json").read_text())
    return {
        name: [None if each is None else masks.decode(masks.as_rle(each)) for each in track]
        for name, track in content.items()
    }
