import numpy as np
import pytest
from PIL import Image

from veason.errors import DataError
from veason.frames import evaluation_frames, frame_size, open_frame, read_frame, resize_frame, training_frames


@pytest.mark.parametrize(
    ("total", "anchor", "expected"),
    [
        (6, 4, [0, 2, 4]),  # a clip of 6 gives 3 frames
        (6, 5, [1, 3, 5]),
        (100, 47, [7, 27, 47, 67, 87]),  # stride 20: 5 frames, not 6
        (100, 99, [19, 39, 59, 79, 99]),
        (101, 100, [16, 37, 58, 79, 100]),  # stride 21
        (5, 3, [0, 1, 2, 3, 4]),
        (1, 0, [0]),
        (3, 1, [0, 1, 2]),
    ],
)
def test_training_frames_stride_through_the_anchor(total, anchor, expected):
    areas = np.zeros(total)
    areas[anchor] = 10
    ties = [
        frames for seed in range(200) if anchor in (frames := training_frames(areas, 6, np.random.default_rng(seed)))
    ]
    assert expected in ties


def test_the_anchor_is_one_of_the_five_largest():
    areas = np.arange(40.0)[::-1]
    seen = {training_frames(areas, 1, np.random.default_rng(seed))[0] for seed in range(100)}
    assert seen == {0, 1, 2, 3, 4}


def test_a_clip_shorter_than_five_has_fewer_candidates():
    seen = {training_frames(np.array([3.0, 0, 1]), 1, np.random.default_rng(seed))[0] for seed in range(60)}
    assert seen == {0, 1, 2}


def test_an_absent_target_may_be_anchored_anywhere():
    seen = {training_frames(np.zeros(20), 1, np.random.default_rng(seed))[0] for seed in range(300)}
    assert seen == set(range(20))


def test_training_frames_follow_the_generator_alone():
    areas = np.random.default_rng(1).random(73)
    draws = [training_frames(areas, 6, np.random.default_rng([7, 3])) for _ in range(3)]
    assert draws[0] == draws[1] == draws[2]


@pytest.mark.parametrize(("total", "count"), [(0, 6), (5, 0)])
def test_nothing_to_sample_is_an_error(total, count):
    with pytest.raises(DataError):
        training_frames(np.zeros(total), count, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (100, [0, 14, 28, 42, 56, 70, 84, 99]),
        (9, [0, 1, 2, 3, 4, 5, 6, 8]),
        (60, [0, 8, 16, 25, 33, 42, 50, 59]),
        (8, list(range(8))),
        (3, [0, 1, 2]),
    ],
)
def test_evaluation_frames(total, expected):
    assert evaluation_frames(total) == expected


def test_read_frame_is_rgb(tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 0] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    frame = read_frame(tmp_path / "a.png")
    assert frame.shape == (20, 30, 3) and frame.dtype == np.uint8
    assert frame[0, 0].tolist() == [200, 0, 0]
    assert frame_size(tmp_path / "a.png") == (20, 30)


def test_a_grey_frame_becomes_rgb(tmp_path):
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / "a.png")
    assert read_frame(tmp_path / "a.png").shape == (4, 4, 3)


def test_resize_is_bilinear_and_square():
    frame = np.random.default_rng(0).integers(0, 255, (72, 128, 3), np.uint8)
    expected = Image.fromarray(frame).resize((56, 56), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(resize_frame(frame, 56)), np.asarray(expected))
    assert np.array_equal(np.asarray(resize_frame(Image.fromarray(frame), 56)), np.asarray(expected))


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "empty"])
def test_a_frame_that_cannot_be_read_is_named(tmp_path, damage):
    path = tmp_path / "00003.jpg"
    if damage != "missing":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        content = path.read_bytes()
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"not a picture", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"00003\.jpg"):
        open_frame(path)
