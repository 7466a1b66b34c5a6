"""Self-contained HTML pages: a template with its style and script inlined, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

SHARED_TEMPLATES = Path(__file__).parent / "templates"  # document.html: the page around a template's block `body`


def render_page(templates: Path, name: str, title: str, media_sources: str = "'none'", **context: Any) -> str:
    """Renders a template, which extends `document.html`; everything in the context is escaped.

    Args:
        templates: the folder, which also has the style `page.css` and the script `page.js`.
        media_sources: where videos may come from, as the content security policy says it.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, SHARED_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((templates / file).read_text(encoding="utf-8") for file in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; media-src {media_sources}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    context |= {"title": title, "security_policy": policy, "style": Markup(style), "script": Markup(script)}
    return environment.get_template(name).render(context)
