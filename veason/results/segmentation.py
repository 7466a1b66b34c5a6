"""The result for one expression: masks, pictures, files."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from veason import masks as rle_masks
from veason.errors import DataError
from veason.files import write_json, write_text
from veason.inference.prediction import Prediction
from veason.masks import Rle
from veason.progress_bar import Progress, no_progress
from veason.results.mask_area import MaskArea
from veason.results.mask_files import coco_content, object_masks, union_mask, write_masks
from veason.results.overlay import Overlay
from veason.results.result_page import replace_surrogates, result_page
from veason.visualization.drawing import data_url, save_picture

Frames = Sequence[np.ndarray]
RESULT_FILES = ("index.html", "result.json", "keyframe.jpg", "overlay.mp4", "masks.zip", "masks_coco.json")
NOTEBOOK_WIDTH = 640  # pixels of the pictures that a notebook shows


@dataclass(frozen=True)
class Segmentation:
    """The result for one expression.

    Attributes:
        expression: what was asked for.
        prediction: the answer behind the masks.
        tracks: per object of the prediction (all objects of a text are one) its mask in every frame, as COCO RLE.
        shown_frames: the frames that the policy saw; none where no policy was asked.
        frames: of the video, uint8 [H, W, 3] RGB each.
        fps: frames a second, for the overlay.
        seconds: that each stage took.
        facts: name -> value, for the page: the video's name, the models.
        notice: a sentence about the models that every reader of the page has to know; "" for none.
        unit_explanation: sentences about the units of the reasoning, for the page.
    """

    expression: str
    prediction: Prediction
    tracks: Sequence[Sequence[Rle]] = field(repr=False)
    shown_frames: list[int]
    frames: Frames = field(repr=False)
    fps: float = 10.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    notice: str = field(default="", repr=False)
    unit_explanation: str = field(default="", repr=False)

    def __repr__(self) -> str:
        height, width = self.frames[0].shape[:2]
        return f"Segmentation({self.expression!r}: {self.outcome}; {len(self.frames)} x {height} x {width})"

    @cached_property
    def coverage(self) -> MaskArea:
        """The share of the picture that the objects cover, frame by frame."""
        return MaskArea.from_tracks(self.tracks, len(self.frames), self.size)

    @property
    def outcome(self) -> str:
        """What was found and how much of the video it covers, or why nothing was, as a phrase."""
        found = self.prediction.outcome
        return found if self.prediction.failure is not None else f"{found}; {self.coverage}"

    @property
    def warning(self) -> str | None:
        """What is wrong with the masks of an answer that names something, in plain words; None where nothing is."""
        return None if self.prediction.failure is not None else self.coverage.warning

    @cached_property
    def masks(self) -> np.ndarray:
        """bool [T, H, W], the union of the objects in every frame."""
        return np.stack([self.mask(index) for index in range(len(self.frames))])

    @property
    def names(self) -> list[str]:
        """Of the frames, by which their masks are called: those of a folder's files, else five digits or more."""
        return getattr(self.frames, "names", None) or [f"{index:05d}" for index in range(len(self.frames))]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, pixels."""
        height, width = self.frames[0].shape[:2]
        return height, width

    def object_masks(self, index: int) -> np.ndarray:
        """bool [K, H, W], the objects in one frame, one a box."""
        return object_masks(self.tracks, index, self.size)

    def mask(self, index: int) -> np.ndarray:
        """bool [H, W], the union of the objects in one frame."""
        return union_mask(self.tracks, index, self.size)

    def overlay(self) -> Overlay:
        """The frames with masks, boxes on the keyframe and a legend; `.write("overlay.mp4")` makes a video of them."""
        prediction = self.prediction
        return Overlay(
            self.frames,
            self.tracks,
            replace_surrogates(self.expression),
            prediction.boxes,
            prediction.keyframe,
            self.fps,
            prediction.outcome,
            prediction.objects,
        )

    def save(self, folder: str | Path, progress: Progress = no_progress) -> Path:
        """Write masks, pictures, overlay video and page, in the place of those of an earlier call.

        masks/<frame>.png (0 or 255), objects/<frame>.png (0, or the object's number, where there are several),
        result.json (answer, reasoning, keyframe, boxes, masks as COCO RLE), masks_coco.json, masks.zip, keyframe.jpg,
        overlay.mp4, and index.html, which holds all that is needed to show it.

        Returns:
            The page.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            remove_result(folder)
            folder.mkdir(parents=True, exist_ok=True)
            started, overlay = time.perf_counter(), self.overlay()
            unions = write_masks(folder, self.tracks, self.names, self.size)
            coco = coco_content(self.tracks, self.names, self.size, self.expression)
            write_json(folder / "masks_coco.json", coco, indent=None)
            overlay.write(folder / "overlay.mp4", progress)
            if overlay.keyframe is not None:
                save_picture(folder / "keyframe.jpg", overlay.picture(overlay.keyframe))
            timed = replace(self, seconds={**self.seconds, "drawing": time.perf_counter() - started})
            write_json(folder / "result.json", timed.to_json(unions), indent=None)
            write_text(folder / "index.html", result_page(timed, overlay, folder))
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error}") from error
        return folder / "index.html"

    def to_json(self, unions: Sequence[Rle] | None = None) -> dict[str, Any]:
        """The content of result.json; `masks` are the unions of the objects, in the video's order."""
        unions = unions or [rle_masks.encode(self.mask(index)) for index in range(len(self.frames))]
        prediction = self.prediction
        return {
            "expression": self.expression,
            "failure": prediction.failure,
            "thinking": prediction.thinking,
            "keyframe": prediction.keyframe,
            "boxes": prediction.boxes,
            "objects": [[each.to_json() for each in item] for item in prediction.objects],
            "answer": prediction.text,
            "frames_shown": self.shown_frames,
            "frames": self.names,
            "source_frames": getattr(self.frames, "source_frames", None),
            "source_seconds": getattr(self.frames, "source_seconds", None),
            "fps": self.fps,
            "seconds": dict(self.seconds),
            "coverage": list(self.coverage.fractions),
            "warning": self.warning,
            "masks": [rle_masks.as_json(rle) for rle in unions],
        }

    def _repr_html_(self) -> str:
        """A notebook's view: the overlay playing, the outcome and the reasoning."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.overlay().write(Path(folder) / "overlay.mp4")
            video = data_url(path.read_bytes(), "video/mp4")
        style, thinking = f"max-width: {NOTEBOOK_WIDTH}px; width: 100%", replace_surrogates(self.prediction.thinking)
        return (
            f"<div><b>{escape(replace_surrogates(self.expression))}</b>: {escape(self.outcome)}<br>"
            f"{''.join(f'<b>{escape(text)}</b><br>' for text in (self.warning, self.notice) if text)}"
            f'<video controls loop autoplay muted playsinline style="{style}" src="{video}"></video>'
            f'<p style="{style}; white-space: pre-wrap">{escape(thinking)}</p></div>'
        )


def remove_result(folder: Path) -> None:
    """Remove what `Segmentation.save` wrote, and the folder where it holds nothing else."""
    if not folder.is_dir():
        return
    for kind in ("masks", "objects"):
        shutil.rmtree(folder / kind, ignore_errors=True)
    for name in RESULT_FILES:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
