"""Pictures of a prediction beside the truth, for rollouts of a training run and samples of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from veason.pictures import PREDICTED, TRUE, add_title, draw_boxes, draw_outline, overlay_masks, strip

HEIGHT = 220  # of a frame in a strip, in pixels; a page shows it smaller and opens it at this size
KEYFRAME_HEIGHT = 360  # of the keyframe
COLUMNS = 3  # frames side by side, so that they can be seen on a telephone


def keyframe_picture(frame: np.ndarray, time: int, predicted: ArrayLike, true: ArrayLike | None) -> np.ndarray:
    """The keyframe with predicted and true boxes.

    Args:
        frame: uint8 [H, W, 3] RGB.
        time: as the policy names it.
        predicted, true: [K, 4] xyxy in pixels of the frame; `true` is None where it is not known.
    """
    scale, legend = KEYFRAME_HEIGHT / frame.shape[0], [("predicted", PREDICTED)]
    picture = _resize(frame, KEYFRAME_HEIGHT, cv2.INTER_LINEAR)
    if true is not None:
        picture = draw_boxes(picture, np.asarray(true, dtype=float).reshape(-1, 4) * scale, TRUE)
        legend.append(("true", TRUE))
    picture = draw_boxes(picture, np.asarray(predicted, dtype=float).reshape(-1, 4) * scale, PREDICTED)
    return add_title(picture, f"keyframe {time}", legend)


def mask_picture(
    frames: Sequence[np.ndarray],
    times: Sequence[int],
    predicted: Sequence[np.ndarray] | np.ndarray | None,
    true: Sequence[np.ndarray] | np.ndarray | None,
    keyframe: int | None = None,
) -> np.ndarray:
    """Frames, COLUMNS side by side, with predicted masks and true outlines.

    Args:
        frames: uint8 [H, W, 3] RGB each.
        times: of the frames.
        predicted, true: per frame [H, W], every value but 0 is the object; None where there are none.
        keyframe: the time from which the masks were tracked.
    """
    cells, labels = [], []
    for number, (frame, time) in enumerate(zip(frames, times)):
        cell = _resize(frame, HEIGHT, cv2.INTER_LINEAR)
        if predicted is not None:
            mask = _resize(np.asarray(predicted[number]), HEIGHT, cv2.INTER_NEAREST)
            cell = draw_outline(overlay_masks(cell, mask, palette=(PREDICTED,)), mask, PREDICTED)
        if true is not None:
            cell = draw_outline(cell, _resize(np.asarray(true[number]), HEIGHT, cv2.INTER_NEAREST), TRUE)
        cells.append(cell)
        labels.append(f"{time}{' keyframe' if time == keyframe else ''}")
    shown = ((predicted, "predicted", PREDICTED), (true, "true", TRUE))
    legend = [(name, colour) for given, name, colour in shown if given is not None]
    return add_title(strip(cells, labels, HEIGHT, COLUMNS), "masks" if legend else "frames", legend)


def _resize(picture: np.ndarray, height: int, interpolation: int) -> np.ndarray:
    """A frame or a mask at a height; drawn on it, lines are equally thick whatever the size of the video."""
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    if interpolation == cv2.INTER_LINEAR and height < picture.shape[0]:
        interpolation = cv2.INTER_AREA
    source = picture.astype(np.uint8) if picture.dtype == bool else np.ascontiguousarray(picture)
    return cv2.resize(source, (width, height), interpolation=interpolation)
