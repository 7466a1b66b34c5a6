"""The page of `veason app`: its parts, and which function each of them calls."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from veason.app.edits import NEW_OBJECT, ON_OBJECT, POINT_KINDS, object_name
from veason.app.frame_editor import frame_editor
from veason.app.user_session import UserSession, create_session, open_upload, stream_answer
from veason.errors import DataError
from veason.inference.segmenter import Segmenter
from veason.progress_bar import T
from veason.results.result_page import replace_surrogates
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION

TITLE = "Open Veason-R1"
CSS = """
.gradio-container {width: 100%; max-width: 1200px !important; margin: 0 auto}
#outcome p {font-size: 1.1em; font-weight: 600}
"""
MODELS_QUEUE = "models"  # what runs one at a time: the policy and the tracker are shared by all users
KEEP_SECONDS = 3600  # of a user's files after the last click
UPLOAD_CLEANUP = (600, KEEP_SECONDS)  # seconds between two looks for old uploads, and their age
PLACEHOLDER = "Drop a video, write what to find, and press Find."


@dataclass(frozen=True)
class UsageLimits:
    """What one user may ask for: frames of a video, megabytes of a file, users in the queue."""

    max_frames: int = 600
    max_upload_mb: int = 200
    max_waiting: int = 16


@dataclass(frozen=True)
class GradioProgress:
    """Shows a stage's progress over the parts that wait for it."""

    shown: Any

    def __call__(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        for number, item in enumerate(items):
            self.shown((number, total), desc=stage)
            yield item


@contextmanager
def show_errors() -> Iterator[None]:
    """A `DataError` as a message to the user; anything else stays an error of the program."""
    try:
        yield
    except DataError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


class AppPage:
    """The page's functions, with the models that they share.

    Args:
        segmenter: the models.
        limits: of what a user may ask for.
        root: the folder of all sessions' files.
        notice: a line about the models.
    """

    def __init__(self, segmenter: Segmenter, limits: UsageLimits, root: Path, notice: str = "") -> None:
        self.segmenter, self.limits, self.root, self.notice = segmenter, limits, root, notice

    def build(self) -> gr.Blocks:
        """The page."""
        limits = f"up to {self.limits.max_frames} frames and {self.limits.max_upload_mb} MB"
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=UPLOAD_CLEANUP) as page:
            session = gr.State(None, time_to_live=KEEP_SECONDS, delete_callback=lambda held: held and held.remove())
            gr.Markdown(f"# {TITLE}\nSay what to find in a video, and get its mask on every frame. {self.notice}")
            with gr.Row():
                with gr.Column(min_width=320):
                    video = gr.Video(label=f"Video, {limits}", sources=["upload"], height=300, elem_id="video")
                    find = gr.Textbox(label="What to find", placeholder="the dog that is chased", elem_id="find")
                    with gr.Row():
                        start = gr.Button("Find", variant="primary", elem_id="start", min_width=100)
                        stop = gr.Button("Stop", elem_id="stop", min_width=100)
                    if TOY_CLIP.is_file():
                        clip, label = [str(TOY_CLIP), TOY_EXPRESSION], f"the toy clip: {TOY_EXPRESSION}"
                        gr.Examples([clip], [video, find], label="Example", example_labels=[label], elem_id="toy")
                with gr.Column(min_width=320):
                    thinking = gr.Textbox(
                        label="Reasoning, as it is written",
                        lines=14,
                        max_lines=14,
                        interactive=False,
                        elem_id="thinking",
                    )
                    outcome = gr.Markdown(PLACEHOLDER, elem_id="outcome")
            with gr.Column(visible=False, elem_id="results") as results:
                edit = self._build_editor(session)
                gr.Markdown("### Overlay and downloads")
                with gr.Row():
                    overlay = gr.Video(show_label=False, autoplay=True, loop=True, height=420, elem_id="overlay")
                    files = gr.Files(label="Downloads", interactive=False, elem_id="files", min_width=320)
            shown = [session, outcome, results, overlay, files, *edit["shown"]]
            asked = gr.on(
                [start.click, find.submit],
                self.find,
                [video, find, session],
                [thinking, *shown],
                concurrency_id=MODELS_QUEUE,
                concurrency_limit=1,
            )
            stop.click(None, cancels=[asked])
            for name, function in (("track", self.track), ("reset", self.reset)):
                edit[name].click(function, session, shown, concurrency_id=MODELS_QUEUE)
        return page

    def _build_editor(self, session: gr.State) -> dict[str, Any]:
        """The edited frame and what is beside it; its parts by name, `shown` are those that a result sets."""
        gr.Markdown("### Keyframe\nWrong? Drag a box or click a point, and track again, on this frame or another.")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                picture = frame_editor(elem_id="edited")
                frame = gr.Slider(0, 1, step=1, label="Frame that is edited", elem_id="frame")
            with gr.Column(scale=2, min_width=320):
                gr.Markdown(
                    "Drag over the object to draw a box. Drag a corner, a side or the middle of a box to change it."
                )
                kind = gr.Radio(POINT_KINDS, value=ON_OBJECT, label="A click is a", elem_id="kind")
                target = gr.Dropdown(
                    [NEW_OBJECT], value=NEW_OBJECT, label="A new box or point belongs to", elem_id="target"
                )
                remove = gr.Button("Remove the object, or all", elem_id="remove")
                track = gr.Button("Track again", variant="primary", elem_id="track")
                reset = gr.Button("Back to the answer", elem_id="reset")
        drawn = [session, picture, target]
        quick: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple"}  # none of two is dropped
        picture.box(self.box, [session, target], drawn, **quick)
        picture.point(self.point, [session, kind, target], drawn, **quick)
        remove.click(self.remove, [session, target], drawn, show_progress="hidden")
        frame.release(self.show_frame, [session, frame], [session, picture], show_progress="hidden")
        return {"shown": [picture, frame, target], "track": track, "reset": reset}

    def find(
        self,
        video: str | None,
        expression: str,
        session: UserSession | None,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict | tuple]:
        """Answer and track; yields the reasoning while it is written, and the result at the end."""
        with show_errors():
            if session is not None:
                session.remove()
            shown = GradioProgress(progress)
            frames = open_upload(video, self.limits.max_frames, shown)
            answer, started = "", time.perf_counter()
            for answer in stream_answer(self.segmenter, frames, expression):
                yield replace_surrogates(answer), None, "Thinking ...", gr.update(visible=False), *[gr.skip()] * 5
            seconds = time.perf_counter() - started
            yield replace_surrogates(answer), None, "Tracking ...", *[gr.skip()] * 6
            new = create_session(self.segmenter, frames, expression, answer, seconds, self.root, shown)
        yield replace_surrogates(answer), *self._shown(new)

    def track(self, session: UserSession | None, progress: Any = gr.Progress()) -> tuple:  # noqa: B008
        """Track what was drawn."""
        with show_errors():
            held = _require_session(session)
            held.track(self.segmenter, GradioProgress(progress))
        return self._shown(held)

    def reset(self, session: UserSession | None, progress: Any = gr.Progress()) -> tuple:  # noqa: B008
        """Go back to the answer's boxes."""
        with show_errors():
            held = _require_session(session)
            held.reset(GradioProgress(progress))
        return self._shown(held)

    def box(self, session: UserSession | None, target: str, event: gr.EventData) -> tuple:
        """A box that was dragged: a new one, or that of an object whose box was taken hold of."""
        with show_errors():
            held = _require_session(session)
            number = event._data.get("object")
            changed = isinstance(number, int)
            held.add_box(event._data.get("box"), object_name(number) if changed else target)
        return self._drawn(held, target if changed else NEW_OBJECT)

    def point(self, session: UserSession | None, kind: str, target: str, event: gr.EventData) -> tuple:
        """A point that was clicked."""
        with show_errors():
            held = _require_session(session)
            following = held.add_point(event._data.get("place"), kind, target)
        return self._drawn(held, following)

    def remove(self, session: UserSession | None, target: str) -> tuple:
        with show_errors():
            held = _require_session(session)
        held.edits = held.edits.remove(target)
        return self._drawn(held, NEW_OBJECT)

    def show_frame(self, session: UserSession | None, frame: float) -> tuple:
        with show_errors():
            held = _require_session(session)
        held.show(int(frame))
        return held, held.edited_frame()

    @staticmethod
    def _drawn(session: UserSession, following: str) -> tuple:
        """The values of `drawn` in `_build_editor`; `following` is what the next box or point belongs to."""
        return session, session.edited_frame(), gr.update(choices=session.edits.names, value=following)

    def _shown(self, session: UserSession) -> tuple:
        """The values of `shown` in `build`."""
        found, warning = session.result.outcome, session.result.warning
        return (
            session,
            f"{found[0].upper()}{found[1:]}." + (f" {warning}" if warning else ""),
            gr.update(visible=True),
            session.overlay,
            session.files,
            session.edited_frame(),
            gr.update(maximum=max(1, len(session.result.frames) - 1), value=session.edits.frame),
            gr.update(choices=session.edits.names, value=NEW_OBJECT),
        )


def _require_session(session: UserSession | None) -> UserSession:
    if session is None:
        raise DataError("there is no result to correct: find something first")
    return session
