"""Pictures of a prediction beside the ground truth, for rollouts of a training run and samples of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from veason.visualization.drawing import (
    PREDICTED_COLOUR,
    TRUE_COLOUR,
    add_title,
    draw_boxes,
    draw_outline,
    frame_strip,
    overlay_masks,
    resize_to_height,
)

HEIGHT = 220  # of a frame in a strip, in pixels; a page shows it smaller and opens it at this size
KEYFRAME_HEIGHT = 360  # of the keyframe
COLUMNS = 3  # frames side by side, so that they can be seen on a telephone


def keyframe_picture(frame: np.ndarray, timestamp: int, predicted: ArrayLike, true: ArrayLike | None) -> np.ndarray:
    """The keyframe with predicted and ground-truth boxes.

    Args:
        frame: uint8 [H, W, 3] RGB.
        timestamp: of the frame, for the title.
        predicted, true: [K, 4] xyxy in pixels of the frame; `true` is None where it is not known.
    """
    scale, legend = KEYFRAME_HEIGHT / frame.shape[0], [("predicted", PREDICTED_COLOUR)]
    picture = resize_to_height(frame, KEYFRAME_HEIGHT)
    if true is not None:
        picture = draw_boxes(picture, np.asarray(true, dtype=float).reshape(-1, 4) * scale, TRUE_COLOUR)
        legend.append(("true", TRUE_COLOUR))
    picture = draw_boxes(picture, np.asarray(predicted, dtype=float).reshape(-1, 4) * scale, PREDICTED_COLOUR)
    return add_title(picture, f"keyframe {timestamp}", legend)


def mask_picture(
    frames: Sequence[np.ndarray],
    timestamps: Sequence[int],
    predicted: Sequence[np.ndarray] | np.ndarray | None,
    true: Sequence[np.ndarray] | np.ndarray | None,
    keyframe_timestamp: int | None = None,
) -> np.ndarray:
    """Frames, COLUMNS side by side, with predicted masks and ground-truth outlines.

    Args:
        frames: uint8 [H, W, 3] RGB each.
        timestamps: of the frames, for the labels.
        predicted, true: per frame [H, W], every value but 0 is the object; None where there are none.
        keyframe_timestamp: of the frame that the masks were tracked from.
    """
    cells, labels = [], []
    for number, (frame, timestamp) in enumerate(zip(frames, timestamps)):
        cell = resize_to_height(frame, HEIGHT)
        if predicted is not None:
            mask = resize_to_height(np.asarray(predicted[number]), HEIGHT, cv2.INTER_NEAREST)
            cell = draw_outline(overlay_masks(cell, mask, palette=(PREDICTED_COLOUR,)), mask, PREDICTED_COLOUR)
        if true is not None:
            cell = draw_outline(
                cell, resize_to_height(np.asarray(true[number]), HEIGHT, cv2.INTER_NEAREST), TRUE_COLOUR
            )
        cells.append(cell)
        labels.append(f"{timestamp}{' keyframe' if timestamp == keyframe_timestamp else ''}")
    shown = ((predicted, "predicted", PREDICTED_COLOUR), (true, "true", TRUE_COLOUR))
    legend = [(name, colour) for given, name, colour in shown if given is not None]
    return add_title(frame_strip(cells, labels, HEIGHT, COLUMNS), "masks" if legend else "frames", legend)
