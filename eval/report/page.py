"""What all pages share: the template engine, the security policy, pictures as data URLs, tables of settings."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
QUALITY = 80  # of the WebP pictures


def render_page(template: str, **context: Any) -> str:
    """Renders a template; everything in the context is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    context |= {"security_policy": policy, "style": Markup(style), "script": Markup(script)}
    return environment.get_template(template).render(context)


def picture_url(picture: np.ndarray) -> str:
    """A picture, uint8 [H, W, 3] RGB, as a WebP data URL."""
    _, encoded = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return data_url(encoded.tobytes(), "webp")


def data_url(content: bytes, kind: str) -> str:
    """An image file's content as a data URL; `kind` is its MIME type after "image/"."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, value in one, value in the other) where they differ; "-" for a key that one does not have."""
    first, second = dict(flat(one)), dict(flat(other))
    keys = [*first, *(key for key in second if key not in first)]
    rows = [(key, show(first.get(key, "-")), show(second.get(key, "-"))) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def show(value: Any) -> str:
    """A setting's value as text: null for None, true and false as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
