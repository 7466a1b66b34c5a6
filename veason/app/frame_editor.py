"""The part of the page on which boxes are dragged and points are clicked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

FILES = Path(__file__).parent


def frame_editor(**options: Any) -> gr.HTML:
    """A picture with boxes that are drawn, changed and moved with the pointer, or with a finger.

    Its value is what `UserSession.edited_frame` gives, or None. It has two events, whose data are fractions of the
    picture's width and height:
        box: `box`, x1, y1, x2, y2, and `object`, the number of the object whose box was changed, or None for a new box.
        point: `place`, x, y.

    Gradio's own components give the place of a click alone, and strokes in the place of boxes (`gr.ImageEditor`). It is
    no class of its own, since Gradio writes a file of stubs beside the source of each subclass of its components.

    Args:
        options: of `gr.HTML`.
    """
    template, css, script = (
        (FILES / f"frame_editor.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return gr.HTML(
        None, html_template=template, css_template=css, js_on_load=script, apply_default_css=False, **options
    )
