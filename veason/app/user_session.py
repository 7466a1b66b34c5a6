"""One user's video, result and edits, and what each button of the page does with them; knows nothing of the page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from veason.app.edits import FrameEdits, box_at, pixel_at
from veason.errors import DataError
from veason.inference.correction import track_again
from veason.inference.segmenter import Segmenter, check_expressions
from veason.progress_bar import Progress, T, no_progress
from veason.results.overlay import Overlay
from veason.results.segmentation import RESULT_FILES, Frames, Segmentation
from veason.video.sources import open_video
from veason.visualization.drawing import picture_url

DOWNLOADS = [name for name in RESULT_FILES if not name.endswith(".jpg")]


@dataclass
class UserSession:
    """What is kept of a user between two clicks."""

    folder: Path  # of the files, a temporary one of its own
    result: Segmentation  # the latest
    answered: Segmentation  # the result of the answer, to which `reset` goes back
    edits: FrameEdits
    picture: np.ndarray = field(init=False, repr=False)  # of the edited frame, without boxes
    scale: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.show(self.edits.frame)

    def show(self, frame: int) -> None:
        """Edit another frame; the boxes and points move to it."""
        self.edits = replace(self.edits, frame=min(max(frame, 0), len(self.result.frames) - 1))
        overlay = Overlay(self.result.frames, self.result.tracks, "")
        self.picture, self.scale = overlay.picture(self.edits.frame), overlay.scale

    def edited_frame(self) -> dict[str, Any]:
        """What `frame_editor` shows.

        Returns:
            `picture`, a data URL of `width` and `height` pixels; `boxes`, of each object that has one its number from 0
            and x1, y1, x2, y2 as fractions of width and height.
        """
        height, width = self.result.size
        sides = (width, height, width, height)
        boxes = [
            {"object": number, "box": [value / side for value, side in zip(edited.box, sides)]}
            for number, edited in enumerate(self.edits.objects)
            if edited.box is not None
        ]
        return {
            "picture": picture_url(self.edits.draw(self.picture, self.scale), quality=85),
            "width": width,
            "height": height,
            "boxes": boxes,
        }

    def add_box(self, corners: object, target: str) -> None:
        """A box that was dragged, in fractions of the frame. Raises DataError."""
        self.edits = self.edits.add_box(box_at(corners, self.result.size), target)

    def add_point(self, place: object, kind: str, target: str) -> str:
        """A point that was clicked, in fractions of the frame; returns the name of its object. Raises DataError."""
        self.edits, name = self.edits.add_point(pixel_at(place, self.result.size), kind, target)
        return name

    def track(self, segmenter: Segmenter, progress: Progress = no_progress) -> None:
        """Track what was drawn, and write the files anew. Raises DataError, and then keeps the result as it was."""
        self._set_result(track_again(segmenter.tracker, self.answered, self.edits.prompts(), progress), progress)

    def reset(self, progress: Progress = no_progress) -> None:
        """Go back to the answer."""
        self.edits = FrameEdits.from_result(self.answered)
        self._set_result(self.answered, progress)

    def _set_result(self, result: Segmentation, progress: Progress) -> None:
        self.result = result
        self.show(self.edits.frame)
        result.save(self.folder, progress)

    @property
    def files(self) -> list[str]:
        """The page, masks and answer."""
        return [str(self.folder / name) for name in DOWNLOADS]

    @property
    def overlay(self) -> str:
        return str(self.folder / "overlay.mp4")

    def remove(self) -> None:
        """Remove the files of a user who has left."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class FrameLimit:
    """Progress that refuses a video of more than `max_frames` frames while it is decoded."""

    progress: Progress
    max_frames: int

    def __call__(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        for number, item in enumerate(self.progress(items, stage, total)):
            if number >= self.max_frames:
                raise DataError(f"the video has more than {self.max_frames} frames: cut it, or start with --max_frames")
            yield item


def open_upload(path: str | None, max_frames: int, progress: Progress = no_progress) -> Any:
    """The frames of an uploaded video. Raises DataError in a sentence for the user."""
    if not path:
        raise DataError("there is no video yet: drop one")
    return open_video(path, None, FrameLimit(progress, max_frames))


def stream_answer(segmenter: Segmenter, frames: Frames, expression: str) -> Iterator[str]:
    """The answer so far, after each step of the policy; the last one is whole. Raises DataError."""
    check_expressions([expression])
    stream = getattr(segmenter.policy, "stream", None)
    if stream is None:
        yield segmenter.generate_answers(frames, [expression])[0]
        return
    for (text,) in stream(segmenter.build_prompts(frames, [expression])):
        yield text


def create_session(
    segmenter: Segmenter,
    frames: Frames,
    expression: str,
    answer: str,
    thinking: float,
    root: Path,
    progress: Progress = no_progress,
) -> UserSession:
    """Track an answer and write its files.

    Args:
        thinking: seconds that the answer took.
        root: the folder in which the session gets its own.
    """
    (result,) = segmenter.track_answers(frames, [expression], [answer], {"thinking": thinking}, progress)
    folder = Path(tempfile.mkdtemp(dir=root))
    result.save(folder, progress)
    return UserSession(folder, result, result, FrameEdits.from_result(result))
