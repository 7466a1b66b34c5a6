"""Pictures: what is drawn is where it was asked for, and the frames that were given stay as they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from veason.visualization.curves import COLOURS
from veason.visualization.drawing import (
    PALETTE,
    PREDICTED_COLOUR,
    RED,
    TRUE_COLOUR,
    add_title,
    draw_boxes,
    draw_outline,
    frame_strip,
    overlay_masks,
    save_picture,
)

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)


def test_boxes_are_outlined_in_red_and_empty_ones_are_not():
    out = draw_boxes(GREY, [[10, 20, 40, 50], [0, 0, 0, 0]])
    assert tuple(out[20, 25]) == tuple(out[35, 10]) == RED
    assert tuple(out[35, 25]) == (100, 100, 100) and tuple(out[0, 0]) == (100, 100, 100)
    assert (GREY == 100).all()
    assert (draw_boxes(GREY, []) == GREY).all()


def test_masks_are_tinted_each_in_its_colour():
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[0, 10:30, 10:30] = masks[1, 35:50, 40:70] = True
    out = overlay_masks(GREY, masks, opacity=0.5)
    assert np.abs(out[20, 20] - (50 + 0.5 * np.array(PALETTE[0]))).max() <= 1
    assert tuple(out[10, 20]) == PALETTE[0] and tuple(out[49, 50]) == PALETTE[1]
    assert (out[~masks.any(0)] == 100).all()
    assert (overlay_masks(GREY, masks[0].astype(np.uint8) * 255) == overlay_masks(GREY, masks[:1])).all()
    with pytest.raises(ValueError, match="masks of"):
        overlay_masks(GREY, np.zeros((1, 10, 10)))


def test_a_strip_has_one_height_and_rows_of_columns():
    wide = np.zeros((30, 90, 3), dtype=np.uint8)
    assert frame_strip([GREY, wide], height=30).shape == (30, 40 + 90, 3)
    grid = frame_strip([GREY, GREY, wide], labels=["a", "b", "c"], height=60, columns=2)
    assert grid.shape == (120, 180, 3) and (grid[:60, 160:] == 255).all()
    with pytest.raises(ValueError, match="at least one"):
        frame_strip([])


# Vision without red or without green cones: Machado, Oliveira, Fernandes 2009, table 1, severity 1.0.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


@pytest.mark.parametrize("matrix", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["all cones", "no red", "no green"])
def test_colours_are_told_apart_without_red_or_green_cones(matrix):
    def seen(colours):
        linear = (np.array(colours) / 255) ** 2.2
        return 255 * (linear @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2)

    predicted, true = seen([PREDICTED_COLOUR, TRUE_COLOUR])
    assert np.linalg.norm(predicted - true) > 120
    for colours in (PALETTE, [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS]):
        shown = seen(colours)
        distances = np.linalg.norm(shown[:, None] - shown[None], axis=-1)
        assert distances[np.triu_indices(len(shown), 1)].min() > 25


def test_a_title_names_the_colours_and_takes_rows_where_it_is_narrow():
    legend = [("predicted", PREDICTED_COLOUR), ("true", TRUE_COLOUR)]
    wide, narrow = add_title(np.zeros((20, 400, 3), np.uint8), "masks", legend), add_title(GREY, "masks", legend)
    assert wide.shape[1] == 400 and (wide[-20:] == 0).all() and len(wide) - 20 < len(narrow) - 60
    for colour in (PREDICTED_COLOUR, TRUE_COLOUR):
        assert (wide == colour).all(-1).sum() > 60 and (narrow == colour).all(-1).sum() > 60
    assert (wide[2, 2] == 255).all()


def test_outlines_are_seen_on_any_ground():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:60] = True
    for ground in (TRUE_COLOUR, (0, 0, 0), (255, 255, 255)):
        out = draw_outline(np.full((60, 80, 3), ground, np.uint8), mask, TRUE_COLOUR)
        assert (out[20, 30:50] == TRUE_COLOUR).all() and (out[:, 40] == 0).all(-1).any()


def test_pictures_are_written(tmp_path):
    out = draw_boxes(GREY, [[10, 20, 40, 50]])
    path = save_picture(tmp_path / "new" / "p.png", out)
    assert (cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) == out).all()
    with pytest.raises((OSError, cv2.error)):
        save_picture(tmp_path / "p.unknown", out)
