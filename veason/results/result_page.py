"""One self-contained HTML page about a result; texts are escaped by the template engine, and nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from veason.frames import evaluation_frames
from veason.results.overlay import Overlay, object_colour
from veason.visualization.drawing import data_url, picture_url
from veason.visualization.html_page import render_page

if TYPE_CHECKING:
    from veason.results.segmentation import Segmentation

TEMPLATES = Path(__file__).with_name("templates")
MAX_EMBEDDED = 64 << 20  # bytes of a video or a download within the page; a larger one is linked
JPEG_QUALITY = 88
STRIP_WIDTH, MAX_STRIP = 640, 16  # pixels of a frame of the page's strip; frames in it
TYPES = {".mp4": "video/mp4", ".json": "application/json", ".zip": "application/zip", ".png": "image/png"}
DOWNLOADS = {
    "masks.zip": "masks (PNG)",
    "masks_coco.json": "masks (COCO RLE)",
    "result.json": "answer and masks (JSON)",
    "overlay.mp4": "overlay (MP4)",
}


def result_page(result: Segmentation, overlay: Overlay, folder: Path) -> str:
    """The page's HTML, about files that lie in `folder`; those beyond `MAX_EMBEDDED` are linked by name."""
    prediction, (height, width), keyframe = result.prediction, result.size, overlay.keyframe
    facts = {**result.facts, "video": f"{len(result.frames)} frames of {width} x {height}, {result.fps:.4g} a second"}
    if result.shown_frames:
        facts["shown to the policy"] = f"frames {', '.join(map(str, result.shown_frames))}"
    strip = result.shown_frames or evaluation_frames(len(result.frames), MAX_STRIP)
    frames = [
        (f"frame {index}, {index / result.fps:.1f} s", page_picture(overlay.picture(index), STRIP_WIDTH))
        for index in strip[:: -(-len(strip) // MAX_STRIP)]
    ]
    return render_page(
        TEMPLATES,
        "prediction.html",
        title=replace_surrogates(result.expression),
        media_sources="data: 'self'",
        result=result,
        thinking=replace_surrogates(prediction.thinking).strip(),
        answer=None if prediction.text_prompt is not None else replace_surrogates(prediction.text),
        outcome=result.outcome[0].upper() + result.outcome[1:] + ".",
        failed=prediction.failure is not None or not result.coverage.frames_in_view,
        overlay=file_url(folder / "overlay.mp4"),
        facts=facts,
        objects=[
            (f"object {number + 1}", "rgb({} {} {})".format(*object_colour(number)), prediction.describe(number))
            for number in range(len(prediction.boxes) if result.tracks else 0)
        ],
        keyframe=None
        if keyframe is None
        else (
            f"keyframe: frame {keyframe}, {keyframe / result.fps:.1f} s of the video",
            page_picture(overlay.picture(keyframe)),
        ),
        frames=frames,
        downloads=[(label, name, file_url(folder / name)) for name, label in DOWNLOADS.items()],
    )


def replace_surrogates(text: str) -> str:
    """The text without half characters, which a policy may write and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def file_url(path: Path) -> str:
    """A file as a data URL; its name where it is larger than `MAX_EMBEDDED`."""
    if path.stat().st_size > MAX_EMBEDDED:
        return path.name
    return data_url(path.read_bytes(), TYPES[path.suffix])


def page_picture(picture: np.ndarray, width: int | None = None) -> str:
    """A picture, uint8 [H, W, 3] RGB, as a data URL, reduced to `width` pixels where it is wider."""
    if width is not None and picture.shape[1] > width:
        size = width, round(picture.shape[0] * width / picture.shape[1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture_url(picture, quality=JPEG_QUALITY)
