"""Each benchmark's layout, written by hand as its authors document it, read back as samples and masks."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from small_benchmarks import MASKS, OTHER, write_json
from small_revos import FRAMES, HEIGHT, WIDTH, rle_json, track_masks

from veason.data import BENCHMARKS, VideoSample, find_benchmark, open_benchmark
from veason.data.training import build_training_data
from veason.errors import DataError
from veason.masks import resize_nearest


def test_revos(revos):
    benchmark = open_benchmark("revos", revos)
    first, second, absent, other = benchmark.samples
    assert benchmark.meta_path.name == "meta_expressions_valid_.json"
    assert first == VideoSample(
        "a/0", "a", "0", "The growing box.", revos / "JPEGImages" / "a", first.frames, HEIGHT, WIDTH, 0, ("0",)
    )
    assert first.frames == tuple(f"{t:05d}" for t in range(FRAMES))
    assert (first.result_dir, first.num_objects, second.num_objects, absent.num_objects) == ("Annotations/a/0", 1, 2, 0)
    assert [sample.type_id for sample in benchmark.samples] == [0, 1, 2, 0]
    expected = [
        [mask if mask is not None else np.zeros((HEIGHT, WIDTH)) for mask in track] for track in track_masks().values()
    ]
    assert np.array_equal(benchmark.masks(second), expected)
    assert np.array_equal(benchmark.masks(second, [9, 0, 3]), np.array(expected)[:, [9, 0, 3]])
    assert benchmark.masks(absent).shape == (0, FRAMES, HEIGHT, WIDTH) and not benchmark.areas(absent).any()
    assert benchmark.foreground(other).shape == (5, HEIGHT, WIDTH) and benchmark.foreground(other).sum() == 5 * 4
    assert benchmark.frame_path(first, 3) == revos / "JPEGImages" / "a" / "00003.jpg"


def test_mevis(mevis):
    benchmark = open_benchmark("mevis", mevis)
    (sample,) = benchmark.samples
    assert (sample.sample_id, sample.object_ids, sample.type_id, sample.height) == (
        "v/0",
        ("7", "8"),
        None,
        HEIGHT,
    )  # size from the first frame
    assert np.array_equal(benchmark.masks(sample), [MASKS, OTHER])
    assert np.array_equal(benchmark.areas(sample), (MASKS | OTHER).sum(axis=(1, 2)))
    assert benchmark.foreground(sample) is None


def test_the_server_keeps_the_truth_of_mevis_valid(mevis):
    benchmark = open_benchmark("mevis", mevis, "valid")
    assert not benchmark.has_ground_truth and benchmark.samples[0].num_objects == 0
    with pytest.raises(DataError, match=r"mevis valid has no public ground truth \(asked for v/0\)"):
        benchmark.masks(benchmark.samples[0])


@pytest.mark.parametrize("name", ["meta_expressions.json", "meta_expressions_.json"])
def test_reasonvos(reasonvos, name):
    (reasonvos / "meta_expressions.json").rename(reasonvos / name)
    benchmark = open_benchmark("reasonvos", reasonvos)
    assert benchmark.meta_path.name == name
    first, second = benchmark.samples
    assert (first.sample_id, first.result_dir) == ("burst_v_3/0", "Annotations/burst_v_3/0")
    assert second.sample_id.startswith("burst_v_5/") and second.expression == "which else?"
    assert first.type_id == 1 and first.frame_dir == reasonvos / "JPEGImages" / "v"
    assert np.array_equal(benchmark.masks(first), [MASKS]) and np.array_equal(benchmark.masks(second), [OTHER])
    assert np.array_equal(benchmark.areas(second), OTHER.sum(axis=(1, 2)))


def test_reasonvos_without_masks_has_no_truth(reasonvos):
    (reasonvos / "Annotations").rename(reasonvos / "elsewhere")
    benchmark = open_benchmark("reasonvos", reasonvos)
    assert not benchmark.has_ground_truth
    with pytest.raises(DataError, match="no public ground truth"):
        benchmark.areas(benchmark.samples[0])


def test_refytvos(refytvos):
    train = open_benchmark("refytvos", refytvos, "train")
    assert [sample.object_ids for sample in train.samples] == [("1",), ("2",)]
    assert np.array_equal(train.masks(train.samples[0]), [MASKS]) and np.array_equal(
        train.masks(train.samples[1], [2]), [OTHER[2:3]]
    )
    valid = open_benchmark("refytvos", refytvos)
    assert not valid.has_ground_truth
    assert [sample.sample_id for sample in valid.samples] == ["w/0"]  # `hidden` is a test video


def test_refdavis17(refdavis17):
    benchmark = open_benchmark("refdavis17", refdavis17)
    assert [benchmark.annotator(sample) for sample in benchmark.samples] == [0, 1, 2, 3] * 2
    assert np.array_equal(benchmark.masks(benchmark.samples[1]), [MASKS]) and np.array_equal(
        benchmark.masks(benchmark.samples[6]), [OTHER]
    )


def test_vicas(vicas):
    benchmark = open_benchmark("vicas", vicas)
    first, pair = benchmark.samples
    assert first.frames == ("00000", "00002", "00004", "00006") and (first.height, first.width) == (HEIGHT, WIDTH)
    assert (first.sample_id, first.object_ids, pair.object_ids) == ("000012/0", ("5",), ("9", "5"))
    gone = OTHER.copy()
    gone[2] = 0
    assert np.array_equal(benchmark.masks(pair), [gone, MASKS])
    assert np.array_equal(benchmark.masks(first, [3, 1]), [MASKS[[3, 1]]])


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_pickles_and_names_its_samples_apart(name, request):
    root = request.getfixturevalue(name)
    benchmark = pickle.loads(pickle.dumps(open_benchmark(name, root)))
    names = [sample.sample_id for sample in benchmark.samples]
    assert len(set(names)) == len(names) > 0
    assert all(benchmark.frame_path(sample, 0).is_file() for sample in benchmark.samples)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("revos", None),
        ("mevis", "valid_u"),
        ("reasonvos", None),
        ("refytvos", None),
        ("refdavis17", "valid"),
        ("vicas", "val"),
        ("mevis2", "valid_u"),
        ("long_rvos", "valid"),
        ("ref_sav", None),
        ("groundmore", None),
        ("reasonseg", None),
    ],
)
def test_every_benchmark_with_masks_can_be_trained_on(name, split, request, monkeypatch):
    root = request.getfixturevalue(name)
    data = build_training_data(name=name, train_files=root, meta_file=split, keyframe_resize=56, sampled_frames=3)
    benchmark = open_benchmark(name, root, data.benchmark.split)
    for index in range(len(data)):
        sample = next(sample for sample in benchmark.samples if sample.sample_id == data.sample_id(index))
        messages, sizes = data.messages_and_sizes(index, seed=1)
        example = data.example(index, seed=1)
        assert example.messages == messages and len(example.images) == len(sizes) == len(
            example.ground_truth.timestamps
        )
        union = benchmark.masks(sample, example.ground_truth.timestamps).any(axis=0)
        assert np.array_equal(example.ground_truth.masks, resize_nearest(union.astype(np.uint8), 56))
        assert [len(boxes) for boxes in example.ground_truth.boxes] == [
            sample.num_objects if frame.any() else 1 for frame in union
        ]
    read = []
    monkeypatch.setattr("veason.data.layouts.masks.read_mask", lambda path: read.append(path))
    data.messages_and_sizes(0, seed=2)
    assert not read  # areas are read once


def test_a_split_without_public_masks_cannot_be_trained_on(mevis):
    with pytest.raises(DataError, match="mevis valid has no public masks to train on"):
        build_training_data(name="mevis", train_files=mevis, meta_file="valid")


@pytest.mark.parametrize(
    ("name", "lost", "says"),
    [
        ("mevis", "valid_u/JPEGImages/v/00002.jpg", r"mevis v/0: frame is missing: .*00002\.jpg"),
        ("mevis", "valid_u/mask_dict.json", r"mask file is missing: .*valid_u/mask_dict\.json"),
        ("mevis", "valid_u/meta_expressions.json", r"annotation file is missing: .*meta_expressions\.json"),
        (
            "reasonvos",
            "Annotations/burst_v_5/00001.png",
            r"reasonvos burst_v_5/0: mask is missing: .*burst_v_5/00001\.png",
        ),
        (
            "refdavis17",
            "valid/Annotations/v/00003.png",
            r"refdavis17 v/0: mask is missing: .*00003\.png \(7 more of 8\); on_missing=skip leaves them out, "
            r"`veason audit",
        ),
        ("vicas", "video_frames/000012/00004.jpg", r"vicas 000012/0: frame is missing: .*00004\.jpg"),
        ("vicas", "annotations/v0.1/000012.json", r"annotation file is missing: .*000012\.json"),
    ],
)
def test_what_is_missing_is_named_when_the_benchmark_is_opened(name, lost, says, request):
    root = request.getfixturevalue(name)
    (root / lost).unlink()
    with pytest.raises(DataError, match=says):
        open_benchmark(name, root)


def test_without_the_check_it_is_named_when_it_is_used(reasonvos):
    (reasonvos / "Annotations" / "burst_v_5" / "00001.png").unlink()
    benchmark = open_benchmark("reasonvos", reasonvos, check=False)
    benchmark.masks(benchmark.samples[1], [0, 2])
    with pytest.raises(DataError, match=r"reasonvos burst_v_5/0: mask is missing: .*00001\.png"):
        benchmark.masks(benchmark.samples[1])


def test_a_mask_of_another_size_is_named(reasonvos):
    Image.fromarray(np.ones((3, 5), np.uint8)).save(reasonvos / "Annotations" / "burst_v_3" / "00002.png")
    benchmark = open_benchmark("reasonvos", reasonvos)
    with pytest.raises(DataError, match=r"reasonvos burst_v_3/0: mask of 3x5 pixels, frames of 48x80"):
        benchmark.areas(benchmark.samples[0])


def test_wrong_names_are_answered(tmp_path, revos):
    with pytest.raises(DataError, match=r"veason.data.sample:VideoSample is no subclass of veason.data.VideoBenchmark"):
        find_benchmark("veason.data.sample:VideoSample")
    with pytest.raises(DataError, match="did you mean reasonvos"):
        open_benchmark("reasonvoss", tmp_path)
    with pytest.raises(DataError, match="it has valid, train"):
        open_benchmark("revos", revos, "test")
    with pytest.raises(DataError, match=r"revos: data folder is missing: .*none"):
        open_benchmark("revos", tmp_path / "none")


def test_an_empty_truth_is_no_reason_not_to_evaluate(revos):
    tracks = json.loads((revos / "mask_dict.json").read_text())
    (revos / "mask_dict.json").write_text(json.dumps({**tracks, "0": [None] * FRAMES}))
    benchmark = open_benchmark("revos", revos)
    assert benchmark.training_problems(benchmark.samples[0]) and not benchmark.training_problems(benchmark.samples[1])
    assert not benchmark.masks(benchmark.samples[0]).any()


def test_a_mask_that_cannot_be_decoded_is_named(revos):
    tracks = json.loads((revos / "mask_dict.json").read_text())
    tracks["0"][3]["counts"] = tracks["0"][3]["counts"][:-1]
    write_json(revos / "mask_dict.json", tracks)
    says = r"a/0: .*mask_dict\.json: id '0', frame 3: run-length mask .* cannot be decoded"
    with pytest.raises(DataError, match=says) as caught:
        open_benchmark("revos", revos)
    assert "\n" not in str(caught.value)
    benchmark = open_benchmark("revos", revos, check=False)
    with pytest.raises(DataError, match=says):
        benchmark.masks(benchmark.samples[0])


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (rle_json(np.ones((9, 8), np.uint8)), "masks of id 'b' are of several sizes, the frames of 48x80"),
        ({"size": [HEIGHT, WIDTH], "counts": "5"}, "id 'b', frame 2: .* cannot be decoded"),
    ],
)
def test_a_foreground_mask_that_does_not_fit_is_named(revos, damaged, says):
    path = revos / "mask_dict_foreground.json"
    content = json.loads(path.read_text())
    content["b"]["masks_rle"][2] = damaged
    write_json(path, content)
    with pytest.raises(DataError, match=rf"revos b/0: .*mask_dict_foreground\.json: {says}"):
        open_benchmark("revos", revos)  # before anything is evaluated, and not only when R is computed
    benchmark = open_benchmark("revos", revos, check=False)
    with pytest.raises(DataError, match=rf"mask_dict_foreground\.json: {says}"):
        benchmark.foreground(benchmark.samples[3])
