"""One self-contained HTML page about a prediction; texts are escaped by the template engine, and nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from veason.pages import render_page
from veason.pictures import data_url, picture_url

TEMPLATES = Path(__file__).with_name("templates")
MAX_EMBEDDED = 64 << 20  # bytes of a video or a download within the page; a larger one is linked
JPEG_QUALITY = 88
TYPES = {".mp4": "video/mp4", ".json": "application/json", ".zip": "application/zip", ".png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A picture of the page, which opens large.

    Attributes:
        caption: below it.
        url: of the data.
        is_keyframe: whether it is marked as such.
    """

    caption: str
    url: str
    is_keyframe: bool = False


@dataclass(frozen=True)
class PageContent:
    """What a page shows.

    Attributes:
        expression, thinking, answer: texts as they are; there is no answer (None) where no policy was asked.
        outcome: one sentence: what was found, or why nothing was.
        failed: whether nothing was found.
        warning: what is wrong with the masks; "" for nothing.
        notice: what has to be known about the models; "" for nothing.
        reading_notes: what seconds and boxes in the reasoning mean.
        facts: name -> value, in order: the video, models, frame numbers.
        seconds: of each stage.
        objects: (name, colour as CSS, box as text).
        overlay: the overlay video.
        keyframe: the keyframe with boxes and masks.
        frames: a strip of frames.
        downloads: (label, file).
    """

    expression: str
    thinking: str
    answer: str | None
    outcome: str
    failed: bool
    overlay: Path
    warning: str = ""
    notice: str = ""
    reading_notes: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    objects: Sequence[tuple[str, str, str]] = ()
    keyframe: Picture | None = None
    frames: Sequence[Picture] = ()
    downloads: Sequence[tuple[str, Path]] = ()


def prediction_page(content: PageContent) -> str:
    """The page's HTML. Files beyond `MAX_EMBEDDED` are linked by name, as they lie beside the page."""
    return render_page(
        TEMPLATES,
        "prediction.html",
        media_sources="data: 'self'",
        content=content,
        overlay=file_url(content.overlay),
        downloads=[(label, path.name, file_url(path)) for label, path in content.downloads],
    )


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
