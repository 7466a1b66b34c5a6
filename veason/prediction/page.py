"""One self-contained HTML page about a prediction; texts are escaped by the template engine, and nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

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
        expression, thinking, answer: texts as they are.
        outcome: one sentence: what was found, or why nothing was.
        failed: whether nothing was found.
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
    answer: str
    outcome: str
    failed: bool
    overlay: Path
    facts: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    objects: Sequence[tuple[str, str, str]] = ()
    keyframe: Picture | None = None
    frames: Sequence[Picture] = ()
    downloads: Sequence[tuple[str, Path]] = ()


def render_page(content: PageContent) -> str:
    """The page's HTML. Files beyond `MAX_EMBEDDED` are linked by name, as they lie beside the page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("prediction.css", "prediction.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("prediction.html").render(
        content=content,
        overlay=file_url(content.overlay),
        downloads=[(label, path.name, file_url(path)) for label, path in content.downloads],
        style=Markup(style),
        script=Markup(script),
        security_policy=f"default-src 'none'; img-src data:; media-src data: 'self'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
    )


def file_url(path: Path) -> str:
    """A file as a data URL; its name where it is larger than `MAX_EMBEDDED`."""
    if path.stat().st_size > MAX_EMBEDDED:
        return path.name
    return data_url(path.read_bytes(), TYPES[path.suffix])


def picture_url(picture: np.ndarray, width: int | None = None) -> str:
    """A picture, uint8 [H, W, 3] RGB, as a JPEG data URL, reduced to `width` pixels where it is wider."""
    image = Image.fromarray(picture)
    if width is not None and image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return data_url(file.getvalue(), "image/jpeg")


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
