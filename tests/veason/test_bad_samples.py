"""What is wrong on the disk is named: file, video, expression; or skipped on request, counted and named."""

import logging

import numpy as np
import pytest
from PIL import Image
from small_revos import FRAMES, HEIGHT, WIDTH, edit, rle_json

from veason.data.revos import ReVOS
from veason.data.training import KeyframeTrainingData
from veason.errors import DataError


def drop_track(root):
    edit(root / "mask_dict.json", lambda tracks: tracks.pop("0"))


def shorten_track(root):
    edit(root / "mask_dict.json", lambda tracks: tracks.update({"0": tracks["0"][:-1]}))


def resize_track(root):
    edit(root / "mask_dict.json", lambda tracks: tracks.update({"0": [rle_json(np.ones((40, 40), np.uint8))] * FRAMES}))


def empty_track(root):
    edit(root / "mask_dict.json", lambda tracks: tracks.update({"0": [None] * FRAMES}))


def drop_frame(root):
    (root / "JPEGImages" / "a" / "00004.jpg").unlink()


def drop_folder(root):
    (root / "JPEGImages" / "a").rename(root / "JPEGImages" / "c")


AT_LOAD = [
    (drop_track, r"a/0: .*mask_dict\.json has no masks for id '0'"),
    (shorten_track, r"a/0: .*mask_dict\.json: id '0' has 11 masks, the video has 12 frames"),
    (resize_track, r"a/0: .*mask_dict\.json: masks of id '0' are of 40x40, the frames of 48x80"),
    (empty_track, r"a/0: .*mask_dict\.json: no mask in any frame \(ids 0\)"),
    (drop_frame, r"a/0: frame is missing: .*a/00004\.jpg"),
    (drop_folder, r"a/0: frame folder is missing: .*JPEGImages/a"),
]


@pytest.mark.parametrize(("damage", "says"), AT_LOAD)
def test_bad_samples_are_named_when_the_data_is_loaded(revos, damage, says):
    damage(revos)
    with pytest.raises(DataError, match=says) as caught:
        KeyframeTrainingData(revos)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [damage for damage, _ in AT_LOAD])
def test_bad_samples_are_skipped_on_request_counted_and_named(revos, damage, caplog):
    damage(revos)
    with caplog.at_level(logging.WARNING):
        data = KeyframeTrainingData(revos, on_bad_sample="skip")
    left_out = {"a/0"} if damage is empty_track else {"a/0", "a/1"}  # a/1 has a second object that is seen
    assert set(data.skipped_samples) == left_out
    assert f"{len(left_out)} bad samples" in caplog.text and "a/0" in caplog.text
    assert data.example(0, 0).sample_id not in left_out


def test_only_a_mixed_up_rle_of_one_frame_waits_for_its_turn(revos):
    def damage(tracks):
        tracks["0"][7] = rle_json(np.ones((4, 4), np.uint8))

    edit(revos / "mask_dict.json", damage)
    with pytest.raises(DataError, match=r"a/0: .*several sizes"):
        KeyframeTrainingData(revos)


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def other_size(path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, r"a/0: frame cannot be read: .*\.jpg"),
        (other_size, r"a/0: frame .*\.jpg is 20x20, the annotation says 48x80"),
    ],
)
def test_bad_pixels_are_named_when_they_are_read(revos, damage, says, caplog):
    for path in (revos / "JPEGImages" / "a").iterdir():
        damage(path)
    with pytest.raises(DataError, match=says):
        KeyframeTrainingData(revos).example(0, 0)
    data = KeyframeTrainingData(revos, on_bad_sample="skip")
    with caplog.at_level(logging.WARNING):
        assert [data.example(0, seed).sample_id for seed in range(3)] == ["b/0"] * 3  # the next one that is whole
    assert list(data.skipped_samples) == ["a/0", "a/1"]
    assert caplog.text.count("bad sample a/0 is skipped (1 sample skipped so far): ") == 1
    assert "bad sample a/1 is skipped (2 samples skipped so far): " in caplog.text


@pytest.mark.parametrize(
    ("track", "sample_id"),
    [("2", "b/0"), ("1", "a/1")],  # of one object; of two that are merged
)
def test_a_damaged_mask_is_named_before_it_is_measured_or_merged(revos, track, sample_id):
    def damage(tracks):
        tracks[track][3] = {
            "size": [HEIGHT, WIDTH],
            "counts": "5" * 9000,
        }  # more runs than pixels: merging would write beyond its memory

    edit(revos / "mask_dict.json", damage)
    with pytest.raises(
        DataError, match=rf"{sample_id}: .*mask_dict\.json: id '{track}', frame 3: run-length mask .* cannot be decoded"
    ):
        KeyframeTrainingData(revos)
    assert list(KeyframeTrainingData(revos, on_bad_sample="skip").skipped_samples) == [sample_id]
    benchmark = ReVOS(revos, "train")
    sample = next(sample for sample in benchmark.samples if sample.sample_id == sample_id)
    with pytest.raises(DataError, match=rf"{sample_id}: .*mask_dict\.json: id '{track}', frame 3"):
        benchmark.areas(sample)


def test_when_nothing_can_be_used_it_says_so(revos):
    for path in (revos / "JPEGImages").glob("*/*.jpg"):
        truncate(path)
    with pytest.raises(DataError, match="none of the 3 samples"):
        KeyframeTrainingData(revos, on_bad_sample="skip").example(1, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"annotation file is missing: .*meta_expressions_train_\.json"),
        ("{", r"annotation file is not JSON: .*meta_expressions_train_\.json"),
        ("[]", 'no "videos"'),
        ('{"videos": {"a": {"expressions": {}}}}', r"meta_expressions_train_\.json: video a: it has no frames"),
        (
            '{"videos": {"a": {"frames": ["0"], "height": 1, "width": 1, "expressions": '
            '{"4": {"exp": "x", "type_id": 0}}}}}',
            r"video a, expression 4: it has no 'anno_id'",
        ),
        (
            '{"videos": {"a": {"frames": ["0"], "height": 1, "width": 1, "expressions": {"4": {"anno_id": []}}}}}',
            r"video a, expression 4: it has no 'exp'",
        ),
        ('{"videos": {}}', "no expression"),
    ],
)
def test_a_bad_annotation_file_is_named(revos, content, says):
    path = revos / "meta_expressions_train_.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=says):
        KeyframeTrainingData(revos)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data folder is missing: .*nowhere"):
        KeyframeTrainingData(tmp_path / "nowhere")


def test_on_bad_sample_is_checked(revos):
    with pytest.raises(DataError, match="raise or skip"):
        KeyframeTrainingData(revos, on_bad_sample="ignore")
