import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from veason import masks
from veason.errors import DataError

small_masks = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


@settings(deadline=None)
@given(small_masks)
def test_area_and_box_are_those_of_the_pixels(mask):
    rle = masks.encode(mask)
    assert np.array_equal(masks.decode(rle), mask)
    assert masks.area(rle) == mask.sum()
    ys, xs = np.where(mask)
    assert masks.box(rle) == (None if len(xs) == 0 else (xs.min(), ys.min(), xs.max(), ys.max()))


@settings(deadline=None)
@given(st.lists(arrays(np.uint8, (7, 9), elements=st.integers(0, 1)), max_size=4), st.booleans())
def test_union_is_that_of_the_pixels(parts, with_null):
    rles = [masks.encode(part) for part in parts] + [None] * with_null
    joined = masks.union(rles)
    expected = np.any(parts, axis=0) if parts else np.zeros((7, 9))
    assert masks.area(joined) == expected.sum()
    if parts:
        assert np.array_equal(masks.decode(joined), expected)
    else:
        assert joined is None


def test_masks_of_two_sizes_are_not_joined():
    with pytest.raises(DataError, match="size"):
        masks.union([masks.encode(np.ones((2, 2))), masks.encode(np.ones((2, 3)))])


def test_as_rle_reads_every_form():
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:7] = 1
    compressed = coco.encode(np.asfortranarray(mask))
    text = {"size": [6, 8], "counts": compressed["counts"].decode()}
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    plain = {"size": [6, 8], "counts": np.diff([0, *changes, len(flat)]).tolist()}
    for form in (compressed, text, plain, [text], [text, plain]):
        assert np.array_equal(masks.decode(masks.as_rle(form)), mask)
    assert masks.as_rle(None) is None
    assert masks.as_rle([]) is None


@pytest.mark.parametrize(
    "value",
    [3, "abc", {}, {"size": [3], "counts": "a"}, {"size": [2, 2]}, {"size": [2, 2], "counts": None}, {"counts": "a"}],
)
def test_what_is_no_mask_is_an_error(value):
    with pytest.raises(DataError, match="run-length"):
        masks.as_rle(value)


def test_a_mask_longer_than_its_size_is_an_error():
    rle = masks.encode(np.eye(20))
    with pytest.raises(DataError, match="decoded"):
        masks.decode({"size": [3, 3], "counts": rle["counts"]})


@pytest.mark.parametrize(
    ("pixels", "height", "width", "expected"),
    [
        ((0, 0, 1279, 719), 720, 1280, [0.5, 0.5, 1279 * 560 / 1280 + 0.5, 719 * 560 / 720 + 0.5]),
        ((10, 20, 10, 20), 720, 1280, [4.875, 20 * 560 / 720 + 0.5, 4.875, 20 * 560 / 720 + 0.5]),
        ((100, 50, 200, 150), 560, 560, [100.5, 50.5, 200.5, 150.5]),
        (None, 480, 854, [0, 0, 0, 0]),
    ],
)
def test_scale_box(pixels, height, width, expected):
    assert masks.scale_box(pixels, height, width, 560) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "shape", [(720, 1280), (480, 854), (1080, 1920), (360, 640), (719, 1271), (100, 77), (560, 560), (1, 3)]
)
def test_resize_takes_the_pixels_that_torch_takes(shape):
    numbered = np.random.default_rng(0).integers(0, 255, (2, *shape), np.uint8)
    expected = torch.nn.functional.interpolate(torch.from_numpy(numbered)[:, None], size=(560, 560), mode="nearest")[
        :, 0
    ].numpy()
    assert np.array_equal(masks.resize_nearest(numbered, 560), expected)


def test_read_mask_keeps_object_numbers(tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([9, 9, 9] * 256)
    picture.save(tmp_path / "p.png")
    Image.fromarray(values * 20).save(tmp_path / "l.png")
    assert np.array_equal(masks.read_mask(tmp_path / "p.png"), values)
    assert np.array_equal(masks.read_mask(tmp_path / "l.png"), values * 20)
    with pytest.raises(DataError, match=r"none\.png"):
        masks.read_mask(tmp_path / "none.png")


def test_damaged_runs_are_told_and_never_decoded():
    sound = masks.encode(np.eye(20, 30, dtype=np.uint8))
    masks.check(sound)
    for counts in (b"", sound["counts"][:-1], sound["counts"] + b"o", b"zzzz", b"5", b"\xff\xfe"):
        with pytest.raises(DataError, match=r"size \[20, 30\] cannot be decoded"):
            masks.decode({"size": [20, 30], "counts": counts})


def test_the_first_damaged_mask_of_a_track_is_told():
    rng = np.random.default_rng(1)
    track = [masks.encode((rng.random((20, 30)) < share).astype(np.uint8)) for share in (0, 0.1, 0.5, 0.9, 1)]
    track[2:2] = [None, None]
    assert masks.find_damage(track) is None and masks.find_damage([None]) is None and masks.find_damage([]) is None
    for counts, says in (
        (track[0]["counts"] + b"1", "runs of 601 pixels for 600"),
        (b"", "no runs"),
        (b"o", "runs cut short"),
        (b"hb" + b"P" * 10 + b"0", "a run of 13 codes"),  # 600, with zeros in front of it
    ):
        broken = [*track, {"size": [20, 30], "counts": counts}, track[0]]
        assert masks.find_damage(broken) == (7, f"run-length mask of size [20, 30] cannot be decoded ({says})")


def test_whatever_is_encoded_passes_the_check():
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 1):
        for height, width in ((1, 1), (1, 90), (70, 1), (720, 1280)):
            mask = (rng.random((height, width)) < share).astype(np.uint8)
            assert np.array_equal(masks.decode(masks.encode(mask)), mask)
