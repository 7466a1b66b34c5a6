"""Text on pictures: sharp, inside the picture, wrapped to a width."""

from __future__ import annotations

import numpy as np
import pytest

from veason.visualization.text import load_font, wrap_text, write_label

WHITE = np.full((120, 200, 3), 255, np.uint8)


def test_a_label_is_sharp():
    """No blurred copy around the strokes: what is not plate or stroke is smoothing of one pixel at an edge."""
    picture = WHITE.copy()
    write_label(picture, "KEYFRAME 12", (10, 80), size=20)
    brightness = picture[62:80, 14:120].mean(-1)
    plate = round(0.25 * 255 + 0.75 * np.mean((20, 22, 26)))
    settled = (np.abs(brightness - plate) < 6) | (brightness > 230)
    assert settled.mean() > 0.7 and (brightness > 230).sum() > 150
    assert (picture[:50] == 255).all() and (picture[:, 190:] == 255).all()


@pytest.mark.parametrize("corner", [(0, 0), (199, 119), (-50, 300), (190, 5)])
def test_a_label_stays_inside(corner):
    picture = WHITE.copy()
    write_label(picture, "abc", corner)
    dark = np.argwhere(picture.min(-1) < 200)
    assert len(dark) and (dark.max(0) < (120, 200)).all()
    assert abs(dark[:, 1].max() - dark[:, 1].min()) > 15


def test_a_label_longer_than_the_picture_is_cut_off():
    picture = WHITE.copy()
    write_label(picture, "a very long label " * 10, (0, 60))
    assert (picture != 255).any()


def test_text_is_wrapped_and_shortened():
    font = load_font(16)
    lines = wrap_text("the dog that is chased by the other dog through the whole garden", font, 180)
    assert len(lines) == 2 and lines[1].endswith("…") and all(font.getlength(line) <= 180 for line in lines)
    assert wrap_text("short", font, 180) == ["short"] and wrap_text("", font, 180) == [""]
    (word,) = wrap_text("w" * 100, font, 180)
    assert word.endswith("…") and font.getlength(word) <= 180
