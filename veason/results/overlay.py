"""The overlay of a prediction on its video: a colour and an outline per object, boxes on the keyframe, a legend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from veason import masks as rle_masks
from veason.masks import Rle
from veason.progress_bar import Progress, no_progress
from veason.tracking.tracker_prompts import ObjectPrompt
from veason.visualization.drawing import PALETTE, Colour, draw_boxes
from veason.visualization.text import load_font, wrap_text, write_label

Tracks = Sequence[Sequence[Rle | None]]  # per object its mask in every frame

MIN_SIDE = 480  # pixels: smaller frames are enlarged, so that outlines and text can be seen
TINT = 0.45  # share of the object's colour inside its outline
BAND, TEXT, MUTED, MARK = (24, 26, 31), (240, 242, 245), (150, 157, 168), (163, 230, 53)
MAX_LEGEND = 8  # objects that the legend names


class Overlay(Sequence[np.ndarray]):
    """The frames of a video under a prediction; frame t is drawn when it is indexed, uint8 [H', W', 3] RGB.

    Above the frame stands the expression, below it the legend and a timeline with the keyframe's mark. Frames whose
    shorter side is below `MIN_SIDE` are enlarged by a whole factor.

    Args:
        frames: uint8 [H, W, 3] RGB each.
        tracks: per object its mask in every frame.
        expression: what was asked for.
        boxes: [K, 4] xyxy in pixels of the frames, one an object; drawn on the keyframe.
        keyframe: None, or outside the video: there is no mark.
        fps: frames a second.
        note: said in the place of the legend where there is no object.
        objects: what is given of each object; drawn on its keyframes in the place of `boxes`.
    """

    def __init__(
        self,
        frames: Sequence[np.ndarray],
        tracks: Tracks,
        expression: str,
        boxes: Sequence[Sequence[float]] = (),
        keyframe: int | None = None,
        fps: float = 10.0,
        note: str = "",
        objects: Sequence[ObjectPrompt] = (),
    ) -> None:
        self.objects = objects
        self.frames, self.tracks, self.boxes, self.fps, self.note = frames, tracks, boxes, fps, note
        self.keyframe = keyframe if keyframe is not None and 0 <= keyframe < len(frames) else None
        height, width = frames[0].shape[:2]
        self.scale = max(1, -(-MIN_SIDE // min(height, width)))
        self.size = height * self.scale, width * self.scale
        self.line = max(13, min(self.size) // 32)  # of text, pixels
        font = load_font(self.line, bold=True)
        self.caption = wrap_text(expression, font, self.size[1] - 2 * self.line)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        index = range(len(self))[index]
        return np.concatenate([self._draw_caption(index), self.picture(index), self._draw_legend(index)])

    def picture(self, index: int) -> np.ndarray:
        """A frame with its masks, and its boxes where it is the keyframe, without text around it."""
        height, width = self.size
        enlarged = cv2.resize(self.frames[index], (width, height), interpolation=cv2.INTER_CUBIC)
        found = [track[index] for track in self.tracks]
        shown = {number: rle_masks.decode(rle) for number, rle in enumerate(found) if rle is not None}
        out = draw_objects(enlarged, {number: self._enlarge(mask) for number, mask in shown.items()})
        for number, box in self._boxes(index):
            corners = np.asarray(box, dtype=float) * self.scale
            out = draw_boxes(out, corners[None], object_colour(number))
            write_label(out, f"{number + 1}", (round(corners[0]), round(corners[1])))
        for number, item in enumerate(self.objects):
            for each in (each for each in item if each.frame == index):
                draw_points(out, np.asarray(each.points) * self.scale, each.labels, object_colour(number))
        return out

    def _boxes(self, index: int) -> list[tuple[int, Sequence[float] | np.ndarray]]:
        """(object's number, box) on one frame."""
        if not self.objects:
            return list(enumerate(self.boxes)) if index == self.keyframe else []
        return [
            (number, each.box)
            for number, item in enumerate(self.objects)
            for each in item
            if each.frame == index and each.box is not None
        ]

    def write(self, path: str | os.PathLike[str], progress: Progress = no_progress) -> Path:
        """Write the overlay as a video (H.264 in MP4, which browsers play); returns the path. Raises OSError."""
        import av

        rate = Fraction(self.fps).limit_denominator(1001)
        with av.open(os.fspath(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=max(rate, Fraction(1, 1000)), options={"crf": "20"})
            stream.pix_fmt = "yuv420p"
            stream.height, stream.width = even_sides(self[0]).shape[:2]
            for index in progress(range(len(self)), "drawing", len(self)):
                picture = even_sides(self[index])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return Path(path)

    def _enlarge(self, mask: np.ndarray) -> np.ndarray:
        return mask.repeat(self.scale, 0).repeat(self.scale, 1) if self.scale > 1 else mask

    def _draw_caption(self, index: int) -> np.ndarray:
        """The band above the frame: the expression, and on the keyframe that it is one."""
        band, draw = self._band(len(self.caption))
        for number, text in enumerate(self.caption):
            place = (self.line, round((0.5 + 1.4 * number) * self.line))
            draw.text(place, text, font=load_font(self.line, bold=True), fill=TEXT)
        if index == self.keyframe:
            draw.rectangle((0, 0, band.width, max(2, self.line // 5)), fill=MARK)
        return np.asarray(band)

    def _draw_legend(self, index: int) -> np.ndarray:
        """The band below the frame: objects and their colours, the frame's number, and the timeline."""
        band, draw = self._band(2)
        font, line, width = load_font(self.line), self.line, self.size[1]
        keyframe = "keyframe  " if index == self.keyframe else ""
        clock = f"{keyframe}{index + 1}/{len(self)}  {index / self.fps:.1f} s"
        end = width - line - font.getlength(clock)
        draw.text((end, 0.4 * line), clock, font=font, fill=MARK if keyframe else MUTED)
        left: float = line
        if not self.tracks:
            draw.text((left, 0.4 * line), wrap_text(self.note, font, int(end - left), 1)[0], font=font, fill=TEXT)
        for number in range(min(len(self.tracks), MAX_LEGEND)):
            name = f"object {number + 1}" if number < MAX_LEGEND - 1 else f"{number + 1} to {len(self.tracks)}"
            if left + 2 * line + font.getlength(name) > end:
                break
            draw.rectangle((left, 0.5 * line, left + line, 1.5 * line), fill=object_colour(number))
            draw.text((left + 1.4 * line, 0.4 * line), name, font=font, fill=TEXT)
            left += 2.4 * line + font.getlength(name)
        self._draw_timeline(draw, index, 2.3 * line)
        return np.asarray(band)

    def _draw_timeline(self, draw: ImageDraw.ImageDraw, index: int, y: float) -> None:
        """The timeline: what has passed, and a diamond at the keyframe."""
        start, length = self.line, self.size[1] - 2 * self.line
        thick, last = max(2, self.line // 6), max(1, len(self) - 1)
        draw.rectangle((start, y, start + length, y + thick), fill=(70, 75, 84))
        draw.rectangle((start, y, start + length * index / last, y + thick), fill=TEXT)
        if self.keyframe is not None:
            x, middle, half = start + length * self.keyframe / last, y + thick / 2, self.line * 0.4
            draw.polygon([(x, middle - half), (x + half, middle), (x, middle + half), (x - half, middle)], fill=MARK)

    def _band(self, lines: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        band = Image.new("RGB", (self.size[1], round((1.4 * lines + 0.6) * self.line)), BAND)
        return band, ImageDraw.Draw(band)


def object_colour(number: int) -> Colour:
    """The colour of an object, by its place among the boxes."""
    return PALETTE[number % len(PALETTE)]


def draw_objects(frame: np.ndarray, masks: dict[int, np.ndarray]) -> np.ndarray:
    """A copy of the frame with each object tinted, and outlined in its colour between dark lines.

    Args:
        frame: uint8 [H, W, 3] RGB.
        masks: object's number -> [H, W], every value but 0 is the object. Later objects lie over earlier ones.
    """
    out = frame.copy()
    thick = max(2, min(frame.shape[:2]) // 240)
    for number, mask in masks.items():
        inside, colour = (mask != 0).astype(np.uint8), object_colour(number)
        chosen = inside.astype(bool)
        out[chosen] = ((1 - TINT) * out[chosen] + TINT * np.array(colour)).round().astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, (0, 0, 0), 2 * thick + 1)
        cv2.drawContours(out, outlines, -1, colour, thick)
    return out


def draw_points(picture: np.ndarray, points: np.ndarray, labels: np.ndarray, colour: Colour) -> None:
    """Draws points [P, 2] in place: discs in the object's colour; white ones with a cross beside the object."""
    radius = max(3, min(picture.shape[:2]) // 100)
    for (x, y), label in zip(np.rint(points).astype(int).tolist(), labels):
        cv2.circle(picture, (x, y), radius + 2, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), radius, colour if label else (255, 255, 255), -1, cv2.LINE_AA)
        if not label:
            cv2.drawMarker(picture, (x, y), colour, cv2.MARKER_TILTED_CROSS, 2 * radius, max(1, radius // 3))


def even_sides(picture: np.ndarray) -> np.ndarray:
    """The picture with its last row and column repeated where H.264 needs even sides."""
    odd = [(0, side % 2) for side in picture.shape[:2]]
    return np.ascontiguousarray(np.pad(picture, (*odd, (0, 0)), mode="edge"))
