"""The page of `veason app`: its parts, and which function each of them calls."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from veason.app.edits import BOX, MODES, NEW
from veason.app.session import Session, finish, open_limited, stream_answer
from veason.errors import DataError
from veason.pipeline import Segmenter
from veason.progress import Item
from veason.segmentation import printable
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION

TITLE = "Open Veason-R1"
CSS = """
.gradio-container {width: 100%; max-width: 1200px !important; margin: 0 auto}
#edited img {cursor: crosshair}
#outcome p {font-size: 1.1em; font-weight: 600}
"""
MODELS = "models"  # what runs one at a time: the policy and the tracker are shared by all users
KEEP_SECONDS = 3600  # of a user's files after the last click
SWEEP = (600, KEEP_SECONDS)  # seconds between two looks for old uploads, and their age
NOTHING = "Drop a video, write what to find, and press Find."


@dataclass(frozen=True)
class Limits:
    """What one user may ask for.

    Attributes:
        max_frames: of a video.
        max_upload_mb: of a file.
        max_waiting: users in the queue.
    """

    max_frames: int = 600
    max_upload_mb: int = 200
    max_waiting: int = 16


@dataclass(frozen=True)
class PageProgress:
    """Shows a stage's progress over the parts that wait for it."""

    shown: Any

    def __call__(self, items: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
        for number, item in enumerate(items):
            self.shown((number, total), desc=stage)
            yield item


@contextmanager
def errors_shown() -> Iterator[None]:
    """A `DataError` as a message to the user; anything else stays an error of the program."""
    try:
        yield
    except DataError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


class Page:
    """The page's functions, with the models that they share.

    Args:
        segmenter: the models.
        limits: of what a user may ask for.
        root: the folder of all sessions' files.
        notice: a line about the models.
    """

    def __init__(self, segmenter: Segmenter, limits: Limits, root: Path, notice: str = "") -> None:
        self.segmenter, self.limits, self.root, self.notice = segmenter, limits, root, notice

    def build(self) -> gr.Blocks:
        """The page."""
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP) as page:
            session = gr.State(None, time_to_live=KEEP_SECONDS, delete_callback=lambda held: held and held.remove())
            gr.Markdown(f"# {TITLE}\nSay what to find in a video, and get its mask on every frame. {self.notice}")
            with gr.Row():
                with gr.Column(min_width=320):
                    video = gr.Video(label=f"Video, {self._limits}", sources=["upload"], height=300, elem_id="video")
                    find = gr.Textbox(label="What to find", placeholder="the dog that is chased", elem_id="find")
                    with gr.Row():
                        start = gr.Button("Find", variant="primary", elem_id="start", min_width=100)
                        stop = gr.Button("Stop", elem_id="stop", min_width=100)
                    if TOY_CLIP.is_file():
                        self._build_example([video, find])
                with gr.Column(min_width=320):
                    thinking = gr.Textbox(
                        label="Reasoning, as it is written",
                        lines=14,
                        max_lines=14,
                        interactive=False,
                        elem_id="thinking",
                    )
                    outcome = gr.Markdown(NOTHING, elem_id="outcome")
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
                concurrency_id=MODELS,
                concurrency_limit=1,
            )
            stop.click(None, cancels=[asked])
            for name, function in (("track", self.track), ("reset", self.reset)):
                edit[name].click(function, session, shown, concurrency_id=MODELS)
        return page

    def _build_example(self, inputs: list[Any]) -> None:
        label = f"the toy clip: {TOY_EXPRESSION}"
        gr.Examples([[str(TOY_CLIP), TOY_EXPRESSION]], inputs, label="Example", example_labels=[label], elem_id="toy")

    @property
    def _limits(self) -> str:
        return f"up to {self.limits.max_frames} frames and {self.limits.max_upload_mb} MB"

    def _build_editor(self, session: gr.State) -> dict[str, Any]:
        """The edited frame and what is beside it; its parts by name, `shown` are those that a result sets."""
        gr.Markdown("### Keyframe\nWrong? Click boxes or points, and track again. Another frame can be chosen below.")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                picture = gr.Image(
                    show_label=False, interactive=False, format="jpeg", buttons=["fullscreen"], elem_id="edited"
                )
                frame = gr.Slider(0, 1, step=1, label="Frame that is edited", elem_id="frame")
            with gr.Column(scale=2, min_width=320):
                mode = gr.Radio(MODES, value=BOX, label="A click adds a", elem_id="mode")
                target = gr.Dropdown([NEW], value=NEW, label="to", elem_id="target")
                gr.Markdown(
                    "A box takes two clicks, on opposite corners. For an object that exists it replaces its box."
                )
                remove = gr.Button("Remove the object, or all", elem_id="remove")
                track = gr.Button("Track again", variant="primary", elem_id="track")
                reset = gr.Button("Back to the answer", elem_id="reset")
        drawn = [session, picture, target]
        picture.select(self.click, [session, mode, target], drawn, show_progress="hidden")
        remove.click(self.remove, [session, target], drawn, show_progress="hidden")
        frame.release(self.show_frame, [session, frame], [session, picture], show_progress="hidden")
        return {"shown": [picture, frame, target], "track": track, "reset": reset}

    def find(
        self,
        video: str | None,
        expression: str,
        session: Session | None,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict | tuple]:
        """Answer and track; yields the reasoning while it is written, and the result at the end."""
        with errors_shown():
            if session is not None:
                session.remove()
            shown = PageProgress(progress)
            frames = open_limited(video, self.limits.max_frames, shown)
            answer, started = "", time.perf_counter()
            for answer in stream_answer(self.segmenter, frames, expression):
                yield printable(answer), None, "Thinking ...", gr.update(visible=False), *[gr.skip()] * 5
            seconds = time.perf_counter() - started
            yield printable(answer), None, "Tracking ...", *[gr.skip()] * 6
            new = finish(self.segmenter, frames, expression, answer, seconds, self.root, shown)
        yield printable(answer), *self._shown(new)

    def track(self, session: Session | None, progress: Any = gr.Progress()) -> tuple:  # noqa: B008
        """Track what was drawn."""
        with errors_shown():
            held = _held(session)
            held.track(self.segmenter, PageProgress(progress))
        return self._shown(held)

    def reset(self, session: Session | None, progress: Any = gr.Progress()) -> tuple:  # noqa: B008
        """Go back to the answer's boxes."""
        with errors_shown():
            held = _held(session)
            held.reset(PageProgress(progress))
        return self._shown(held)

    def click(self, session: Session | None, mode: str, target: str, event: gr.SelectData) -> tuple:
        """A click on the edited frame."""
        with errors_shown():
            held = _held(session)
        x, y = held.pixel(*event.index)
        held.edits, following = held.edits.click(x, y, mode, target)
        return held, held.edited_picture(), gr.update(choices=held.edits.names, value=following)

    def remove(self, session: Session | None, target: str) -> tuple:
        with errors_shown():
            held = _held(session)
        held.edits = held.edits.remove(target)
        return held, held.edited_picture(), gr.update(choices=held.edits.names, value=NEW)

    def show_frame(self, session: Session | None, frame: float) -> tuple:
        with errors_shown():
            held = _held(session)
        held.show(int(frame))
        return held, held.edited_picture()

    def _shown(self, session: Session) -> tuple:
        """The values of `shown` in `build`."""
        found = session.result.prediction.outcome
        return (
            session,
            f"{found[0].upper()}{found[1:]}.",
            gr.update(visible=True),
            session.overlay,
            session.files,
            session.edited_picture(),
            gr.update(maximum=max(1, len(session.result.frames) - 1), value=session.edits.frame),
            gr.update(choices=session.edits.names, value=NEW),
        )


def _held(session: Session | None) -> Session:
    if session is None:
        raise DataError("there is no result to correct: find something first")
    return session
