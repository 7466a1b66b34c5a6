"""The overlay video: colours, outlines, the keyframe's mark and boxes, the legend, and a file that plays."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from veason.masks import encode
from veason.results.overlay import MARK, Overlay, draw_objects, even_sides
from veason.visualization.drawing import PALETTE

TOTAL, HEIGHT, WIDTH = 6, 481, 641  # odd sides: the video has even ones


@pytest.fixture
def overlay():
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, 100:300, 100:250], masks[1, 200:400, 400:600] = True, True
    masks[0, 150:250, 150:200] = False  # a hole
    tracks = [[encode(mask)] * TOTAL for mask in masks]
    frames = np.full((TOTAL, HEIGHT, WIDTH, 3), 100, np.uint8)
    return Overlay(frames, tracks, "the two ducks", [(90, 90, 260, 310), (390, 190, 610, 410)], 2, fps=29.97)


def has_colour(picture, colour):
    return (np.abs(picture.astype(int) - colour).max(-1) < 3).any()


def test_each_object_has_its_colour_and_a_dark_outline(overlay):
    picture = overlay.picture(0)
    for row, column, colour in ((120, 120, PALETTE[0]), (300, 500, PALETTE[1])):
        assert np.abs(picture[row, column] - (0.55 * 100 + 0.45 * np.array(colour))).max() <= 1
    assert (picture[200, 175] == 100).all() and (picture[20, 20] == 100).all()  # the hole, the background
    crossing = picture[180, 85:120]  # from the background into the first object
    assert has_colour(crossing[None], PALETTE[0]) and has_colour(crossing[None], (0, 0, 0))
    assert has_colour(picture[180:181, 140:160], PALETTE[0])  # the hole is outlined too


def test_boxes_are_on_the_keyframe_alone(overlay):
    changed = (overlay.picture(2) != overlay.picture(1)).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed.any() and rows.min() < 95 and columns.max() > 605
    np.testing.assert_array_equal(overlay.picture(0), overlay.picture(5))


def test_the_keyframe_is_marked_on_every_frame(overlay):
    frames = [overlay[index] for index in range(TOTAL)]
    assert len({frame.shape for frame in frames}) == 1 and frames[0].shape[0] > HEIGHT and frames[0].shape[1] == WIDTH
    assert all(has_colour(frame[-60:], MARK) for frame in frames)  # the diamond in the timeline
    assert has_colour(frames[2][:4], MARK) and not has_colour(frames[1][:4], MARK)  # the bar of the keyframe itself
    assert all(has_colour(frame[-60:], PALETTE[0]) and has_colour(frame[-60:], PALETTE[1]) for frame in frames)


@pytest.mark.parametrize("keyframe", [None, -1, TOTAL, 10**30])
def test_without_a_keyframe_there_is_no_mark(keyframe):
    frames = np.full((TOTAL, 64, 64, 3), 100, np.uint8)
    overlay = Overlay(frames, [], "x", [], keyframe, note="the answer names no box")
    assert overlay.keyframe is None and not any(has_colour(overlay[time], MARK) for time in range(TOTAL))


def test_small_frames_are_enlarged_and_long_texts_fit():
    frames = np.random.default_rng(0).integers(0, 255, (2, 90, 160, 3), np.uint8)
    mask = np.zeros((90, 160), bool)
    mask[10:50, 20:80] = True
    overlay = Overlay(frames, [[encode(mask)] * 2] * 12, "the one that " * 40, [(20, 10, 80, 50)] * 12, 0)
    assert overlay.picture(0).shape == (540, 960, 3) and overlay[0].shape[1] == 960
    assert len(overlay.caption) == 2


def test_the_video_plays_at_its_rate(overlay, tmp_path):
    seen = []

    def progress(items, stage, total):
        seen.append((stage, total))
        return items

    path = overlay.write(tmp_path / "overlay.mp4", progress)
    assert seen == [("drawing", TOTAL)]
    with av.open(str(path)) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].average_rate == Fraction(2997, 100)
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(shown) == TOTAL and all(side % 2 == 0 for side in shown[0].shape[:2])
    drawn = even_sides(overlay[3]).astype(int)
    assert np.abs(shown[3].astype(int) - drawn).mean() < 6


def test_what_is_given_stays_as_it_was():
    frame = np.full((30, 30, 3), 100, np.uint8)
    mask = np.zeros((30, 30), np.uint8)
    mask[5:20, 5:20] = 255
    assert (draw_objects(frame, {0: mask}) != frame).any() and (frame == 100).all()
