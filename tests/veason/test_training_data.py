import json
import pickle

import numpy as np
import pytest
from small_revos import FRAMES, HEIGHT, WIDTH, edit, rectangle, rle_json, track_masks

from veason.data.revos import ReVOS
from veason.data.selection import read_exclusions
from veason.data.training import KeyframeTrainingData, build_training_data
from veason.errors import DataError
from veason.masks import resize_nearest


def sample_of(data, name):
    return [data.sample_id(index) for index in range(len(data))].index(name)


def test_the_samples_are_the_expressions_with_a_target(revos):
    data = KeyframeTrainingData(revos)
    assert [data.sample_id(index) for index in range(len(data))] == ["a/0", "a/1", "b/0"]


def test_a_small_set_is_not_asked_for_a_subset(revos, monkeypatch):
    (note,) = KeyframeTrainingData(revos).startup_messages
    assert note.endswith("expressions") and "subset" not in note
    monkeypatch.setattr("veason.data.revos.SELECTED_SIZE", 3)
    (note,) = KeyframeTrainingData(revos).startup_messages
    assert "the balanced subset" in note and "data_sampling.py" in note


def test_an_example_holds_the_truth_of_its_frames(revos):
    data = KeyframeTrainingData(revos)
    tracks = track_masks()
    for seed in range(6):
        example = data.example(sample_of(data, "a/1"), seed)
        timestamps = example.ground_truth.timestamps
        assert timestamps == list(range(timestamps[0], FRAMES, 3)) and len(timestamps) == 4  # stride ceil(12 / 5) = 3
        assert example.ground_truth.masks.shape == (4, 560, 560) and example.ground_truth.masks.dtype == np.uint8
        for timestamp, boxes, mask in zip(timestamps, example.ground_truth.boxes, example.ground_truth.masks):
            present = [tracks[name][timestamp] for name in ("0", "1")]
            union = np.max([m if m is not None else np.zeros((HEIGHT, WIDTH), np.uint8) for m in present], axis=0)
            assert np.array_equal(mask, resize_nearest(union, 560))
            expected = [
                [10 * 7 + 0.5, 4 * 560 / 48 + 0.5, (10 + timestamp) * 7 + 0.5, 20 * 560 / 48 + 0.5]
                if timestamp >= 2
                else [0, 0, 0, 0],
                [50 * 7 + 0.5, 30 * 560 / 48 + 0.5, 69 * 7 + 0.5, 39 * 560 / 48 + 0.5]
                if timestamp < 6
                else [0, 0, 0, 0],
            ]
            assert np.allclose(boxes, expected, atol=1e-9)


def test_a_frame_without_any_target_has_one_zero_box(revos):
    edit(
        revos / "mask_dict.json",
        lambda tracks: tracks.update({"1": [rle_json(rectangle(0, 0, 3, 3))] * 2 + [None] * 10, "0": [None] * 12}),
    )
    example = KeyframeTrainingData(revos, exclude=["a/0"]).example(0, 0)
    absent = [
        boxes for timestamp, boxes in zip(example.ground_truth.timestamps, example.ground_truth.boxes) if timestamp >= 2
    ]
    assert absent and all(boxes == [[0, 0, 0, 0]] for boxes in absent)


def test_images_and_messages_belong_together(revos):
    data = KeyframeTrainingData(revos, keyframe_resize=112, sampled_frames=4)
    example = data.example(0, 5)
    placeholders = [part for part in example.messages[1]["content"] if part["type"] == "image"]
    assert len(placeholders) == len(example.images) == len(example.ground_truth.timestamps)
    assert all(image.size == (112, 112) and image.mode == "RGB" for image in example.images)
    assert "112 x 112" in example.messages[1]["content"][-1]["text"]
    for timestamp, image in zip(
        example.ground_truth.timestamps, example.images
    ):  # the frames of the fixture are as bright as ten times their number
        assert abs(int(np.asarray(image).mean()) - timestamp * 10) <= 2


def test_messages_and_sizes_tell_what_example_gives_without_reading_pixels(revos, monkeypatch):
    data = KeyframeTrainingData(revos)
    examples = [data.example(index, seed) for index in range(len(data)) for seed in range(3)]
    monkeypatch.setattr("veason.data.training.open_frame", None)
    monkeypatch.setattr("veason.masks.decode", None)
    prompts = [data.messages_and_sizes(index, seed) for index in range(len(data)) for seed in range(3)]
    assert [(e.messages, [(i.height, i.width) for i in e.images]) for e in examples] == prompts


def test_examples_depend_on_index_and_seed_alone(revos):
    data = KeyframeTrainingData(revos)
    first = data.example(1, 7)
    data.example(0, 3)
    again = pickle.loads(pickle.dumps(data)).example(1, 7)
    assert (
        first.ground_truth.timestamps == again.ground_truth.timestamps
        and first.ground_truth.boxes == again.ground_truth.boxes
    )
    assert np.array_equal(first.images[0], again.images[0])
    assert len({tuple(data.example(1, seed).ground_truth.timestamps) for seed in range(20)}) > 1


def test_absent_targets_on_request(revos):
    data = KeyframeTrainingData(revos, include_no_target=True)
    example = data.example(sample_of(data, "a/2"), 0)
    assert example.ground_truth.boxes == [[[0, 0, 0, 0]]] * len(example.images)
    assert not example.ground_truth.masks.any() and example.ground_truth.masks.shape == (len(example.images), 560, 560)


def test_exclusions(revos, tmp_path):
    listed = tmp_path / "exclude.txt"
    listed.write_text("# misaligned\na/0  # jumps\n\nb\n")
    assert read_exclusions(listed) == {"a/0", "b"}
    for exclude in (listed, str(listed), ["a/0", "b"]):
        data = KeyframeTrainingData(revos, exclude=exclude)
        assert [data.sample_id(index) for index in range(len(data))] == ["a/1"]
    with pytest.raises(DataError, match=r"exclusion list is missing: .*no\.txt"):
        KeyframeTrainingData(revos, exclude=tmp_path / "no.txt")
    with pytest.raises(DataError, match="no sample to train on"):
        KeyframeTrainingData(revos, exclude=["a", "b"])


def test_the_selected_set_is_taken_where_there_is_one(revos):
    content = json.loads((revos / "meta_expressions_train_.json").read_text())
    del content["videos"]["a"]
    (revos / "meta_expressions_train_select.json").write_text(json.dumps(content))
    assert len(KeyframeTrainingData(revos)) == 1
    assert len(KeyframeTrainingData(revos, meta_file="meta_expressions_train_.json")) == 3
    assert len(KeyframeTrainingData(revos / "meta_expressions_train_.json")) == 3


class Own:
    def __init__(self, root, sampled_frames=1):
        self.got = (root, sampled_frames)


def test_training_data_is_built_from_the_config_section(revos):
    section = {
        "train_files": str(revos),
        "sampled_frames": 4,
        "keyframe_resize": 112,
        "shuffle": True,
        "max_prompt_length": 7100,
    }
    for name in ("video_seg_keyframe_sft_base_mod", "revos"):
        data = build_training_data(name=name, **section)
        assert (data.sampled_frames, data.size) == (4, 112)
    assert build_training_data(name=f"{__name__}:Own", **section).got == (str(revos), 4)


def test_an_unknown_name_offers_the_nearest(revos):
    with pytest.raises(DataError, match="did you mean revos"):
        build_training_data(name="revoss", train_files=revos)
    with pytest.raises(DataError, match="train_files is not set"):
        build_training_data(name="revos")
    with pytest.raises(DataError, match=r"data\.options\.stils is unknown; options: sampled_frames"):
        build_training_data(name="revos", train_files=revos, options={"stils": 1})
    assert (
        build_training_data(
            name="revos", train_files=revos, sampled_frames=6, options={"sampled_frames": 4}
        ).sampled_frames
        == 4
    )
    with pytest.raises(DataError, match="cannot be imported"):
        build_training_data(name="no.such.module:Thing", train_files=revos)


def test_areas_are_those_of_the_decoded_union(revos):
    benchmark = ReVOS(revos, "train")
    for sample in benchmark.samples:
        union = benchmark.masks(sample).any(axis=0) if sample.num_objects else np.zeros((FRAMES, HEIGHT, WIDTH), bool)
        assert np.array_equal(benchmark.areas(sample), union.sum(axis=(1, 2)))
