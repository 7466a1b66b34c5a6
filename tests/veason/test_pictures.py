"""Pictures: what is drawn is where it was asked for, and the frames that were given stay as they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from veason.curves import save_curves
from veason.pictures import PALETTE, RED, draw_boxes, overlay_masks, save_picture, strip

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
    assert strip([GREY, wide], height=30).shape == (30, 40 + 90, 3)
    grid = strip([GREY, GREY, wide], labels=["a", "b", "c"], height=60, columns=2)
    assert grid.shape == (120, 180, 3) and (grid[:60, 160:] == 255).all()
    with pytest.raises(ValueError, match="at least one"):
        strip([])


def test_pictures_and_curves_are_written(tmp_path):
    out = draw_boxes(GREY, [[10, 20, 40, 50]])
    path = save_picture(tmp_path / "new" / "p.png", out)
    assert (cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) == out).all()
    with pytest.raises((OSError, cv2.error)):
        save_picture(tmp_path / "p.unknown", out)
    curves = {"reward": [0.1, float("nan"), 0.3], "J&F": ([1, 5], [0.2, 0.4])}
    assert save_curves(tmp_path / "curves.png", curves, "t", smooth=2).stat().st_size > 2000
