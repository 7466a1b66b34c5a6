"""Pictures of a prediction beside the truth, for rollouts of a training run and samples of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from veason.pictures import PREDICTED, TRUE, add_title, draw_boxes, draw_outline, overlay_masks, strip

HEIGHT = 220  # of a frame in a strip, in pixels; a page shows it smaller and opens it at this size
KEYFRAME_HEIGHT = 360


def keyframe_picture(
    frame: np.ndarray, time: int, predicted: ArrayLike, true: ArrayLike | None, height: int = KEYFRAME_HEIGHT
) -> np.ndarray:
    """The keyframe with predicted and true boxes.

    Args:
        frame: uint8 [H, W, 3] RGB.
        time: as the policy names it.
        predicted, true: [K, 4] xyxy in pixels of the frame; `true` is None where it is not known.
    """
    legend = [("predicted", PREDICTED)]
    if true is not None:
        frame = draw_boxes(frame, true, TRUE)
        legend.append(("true", TRUE))
    return add_title(strip([draw_boxes(frame, predicted, PREDICTED)], height=height), f"keyframe {time}", legend)


def mask_picture(
    frames: Sequence[np.ndarray],
    times: Sequence[int],
    predicted: Sequence[np.ndarray] | np.ndarray | None,
    true: Sequence[np.ndarray] | np.ndarray | None,
    keyframe: int | None = None,
    height: int = HEIGHT,
) -> np.ndarray:
    """A strip of frames with predicted masks and true outlines.

    Args:
        frames: uint8 [H, W, 3] RGB each.
        times: of the frames.
        predicted, true: per frame [H, W], every value but 0 is the object; None where there are none.
        keyframe: the time from which the masks were tracked.
    """
    cells, labels = [], []
    for number, (frame, time) in enumerate(zip(frames, times)):
        if predicted is not None:
            frame = overlay_masks(frame, np.asarray(predicted[number]), palette=(PREDICTED,))
        if true is not None:
            frame = draw_outline(frame, true[number], TRUE)
        cells.append(frame)
        labels.append(f"{time}{' keyframe' if time == keyframe else ''}")
    legend = [(name, colour) for name, given, colour in _legend(predicted, true) if given is not None]
    return add_title(strip(cells, labels, height=height), "masks" if legend else "frames", legend)


def _legend(predicted: object, true: object) -> list[tuple[str, object, tuple[int, int, int]]]:
    return [("predicted", predicted, PREDICTED), ("true", true, TRUE)]
