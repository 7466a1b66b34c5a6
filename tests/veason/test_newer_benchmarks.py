"""MeViS v2, Long-RVOS, Ref-SAV, GroundMoRe and ReasonSeg: samples and masks from their files, and scores against the
authors' own code.

golden/benchmarks.json has the numbers of that code on the files of small_official.py, to the last bit of float64:
iSEE-Laboratory/Long_RVOS `eval/eval_long_rvos/eval_static.py`, henghuiding/MeViS `tools/eval_mevis.py`, bytedance/Sa2VA
`tools/eval/eval_ref_sav.py`, dengandong/GroundMoRe `evaluate_groundmore.py` (given masks in place of the model's) and
dvlab-research/LISA `train_ds.py`, `utils/data_processing.py` (float64 in place of its float32).
"""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_official import WRITERS, write_json, write_predictions

from eval.score_table import summarize
from tests.scoring import score_benchmark
from veason.audit.command import main as audit
from veason.data import detect_benchmark, find_benchmark, open_benchmark
from veason.data.training import build_training_data
from veason.errors import DataError
from veason.metrics.image_iou import image_iou, total_iou
from veason.metrics.temporal_iou import temporal_ious

GOLDEN = json.loads((Path(__file__).parent / "golden" / "benchmarks.json").read_text())


@pytest.fixture(params=[*WRITERS])
def scored(request, tmp_path):
    """(name, folder, scores of random predictions)"""
    root = WRITERS[request.param](tmp_path)
    write_predictions(request.param, root, tmp_path / "predictions")
    return request.param, root, score_benchmark(request.param, root, None, tmp_path / "predictions", processes=1)


def test_every_expression_scores_as_in_the_authors_code(scored):
    name, _, scores = scored
    expected = GOLDEN[name]["samples"]
    assert {score.sample_id for score in scores} == set(expected)
    for score in scores:
        for metric, value in expected[score.sample_id].items():
            if metric != "labels":
                assert score.value(metric) == pytest.approx(value, rel=0, abs=1e-9), (score.sample_id, metric)


def test_the_table_is_that_of_the_authors_code(scored):
    name, _, scores = scored
    values, expected = summarize(find_benchmark(name), scores), dict(GOLDEN[name]["table"])
    if name == "reasonseg":
        mean = expected.pop("gIoU of the code, over n + 1e-5")
        assert values["gIoU"].value * len(scores) / (len(scores) + 1e-5) == pytest.approx(mean, rel=0, abs=1e-9)
    assert expected.keys() <= values.keys()
    for title, value in expected.items():
        assert values[title].value == pytest.approx(value, rel=0, abs=1e-9), title


@pytest.mark.parametrize("name", WRITERS)
def test_published_rows_have_the_titles_of_the_table(name):
    cls = find_benchmark(name)
    titles = {column.title for column in cls.columns} | {"cIoU"}
    for rows in cls.paper.values():
        assert rows and all(0 < value < 100 for _, row in rows for value in row.values())
        assert all(row.keys() <= titles for _, row in rows)
    assert not cls.paper or "Rows" in cls.note  # the source


@pytest.mark.parametrize("name", WRITERS)
def test_the_files_are_recognized(name, request):
    assert detect_benchmark(request.getfixturevalue(name)) == name


@pytest.mark.parametrize("name", WRITERS)
def test_the_audit_finds_nothing_to_exclude(name, request, tmp_path):
    root, output = request.getfixturevalue(name), tmp_path / "audit"
    assert audit([str(root), "--output", str(output)]) == 0
    findings = [line for line in (output / "report.md").read_text().splitlines() if line.startswith("| extra_frame")]
    assert [line.split("|")[3].strip() for line in findings] == ["0"]


def test_long_rvos(long_rvos):
    benchmark = open_benchmark("long_rvos", long_rvos)
    first, second = benchmark.samples[:2]
    assert (first.sample_id, first.object_ids, first.category, second.object_ids) == ("v/0", ("1",), "static", ("12",))
    assert benchmark.samples[2].category == "static+dynamic"
    folder = long_rvos / "valid" / "Annotations" / "v" / "1"
    assert not (folder / "00004.png").exists()
    masks = benchmark.masks(first)
    assert not masks[0, [0, 4]].any()
    assert np.array_equal(masks[0, 2], cv2.imread(str(folder / "00002.png"), cv2.IMREAD_GRAYSCALE) // 255)
    benchmark.build_index()
    assert (long_rvos / "valid" / "Annotations.index").is_file()
    prepared = pickle.loads(pickle.dumps(benchmark))
    (folder / "00002.png").write_bytes(b"")  # so the index is read
    assert np.array_equal(prepared.masks(first), masks)
    assert np.array_equal(prepared.masks(first, [5, 0, 2]), masks[:, [5, 0, 2]])
    assert not open_benchmark("long_rvos", long_rvos, "test").has_ground_truth
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"long_rvos v/0: mask folder is missing: .*Annotations/v/1"):
        open_benchmark("long_rvos", long_rvos)
    with pytest.raises(DataError, match=r"long_rvos v/0: mask folder is missing"):
        open_benchmark("long_rvos", long_rvos, check=False).masks(first)


def test_temporal_consistency():
    true, pred = np.zeros((2, 4, 2, 2), np.uint8)
    assert temporal_ious(pred, true) == (1, 1)
    true[:2, 0] = 1
    assert temporal_ious(pred, true) == (0, 0)
    pred[1:, 0, 0] = 255  # in view in frames 0, 1; found in frames 1, 2, 3, half of it
    assert temporal_ious(pred, true) == (1 / 4, 0.5 / 4)


def test_ref_sav(ref_sav):
    benchmark = open_benchmark("ref_sav", ref_sav)
    first = benchmark.samples[0]
    assert (first.sample_id, first.type_id, first.object_ids) == ("sav_000001/0", 0, ("0",))
    assert benchmark.frame_path(first, 1) == ref_sav / "videos" / "sav_000001" / "00001.jpg"


def test_mevis2_knows_absent_targets(mevis2):
    benchmark = open_benchmark("mevis2", mevis2)
    assert [sample.type_id for sample in benchmark.samples] == [None, None, 2, 2, None]
    assert [sample.type_id for sample in open_benchmark("mevis2", mevis2, "valid").samples] == [None] * 5
    shown = build_training_data("mevis2", mevis2, meta_file="valid_u", keyframe_resize=56)
    everything = build_training_data("mevis2", mevis2, meta_file="valid_u", keyframe_resize=56, include_no_target=True)
    assert (len(shown), len(everything)) == (3, 5)


def test_mevis2_counts_whether_there_is_an_answer(mevis2, tmp_path):
    predictions = write_predictions("mevis2", mevis2, tmp_path / "p")
    scores = score_benchmark("mevis2", mevis2, None, tmp_path / "p", processes=1)
    empty = [sample_id for sample_id, masks in predictions.items() if not masks.any()]
    assert empty == ["v/3"]  # of the expressions without a target, 2 and 3
    values = summarize(find_benchmark("mevis2"), scores)
    assert (values["N-acc."].value, values["T-acc."].value) == (50, 100)
    assert values["Final"].value == pytest.approx((values["J&F"].value + 50 + 100) / 3)
    for path in (tmp_path / "p" / "v" / "3").iterdir():
        path.unlink()
    scores = score_benchmark("mevis2", mevis2, None, tmp_path / "p", processes=1)
    assert summarize(find_benchmark("mevis2"), scores)["N-acc."].value == 0  # a missing prediction counts as wrong


def test_groundmore(groundmore):
    benchmark = open_benchmark("groundmore", groundmore)
    first, last = benchmark.samples[0], benchmark.samples[4]
    assert (first.sample_id, first.expression) == ("match_a_0058_0104/0", "who 0?")
    assert (first.category, first.object_ids) == ("Causal", ("1",))
    positions = [int(frame) for frame in first.frames]
    assert positions == np.linspace(0, 35, 20, dtype=int).tolist()
    # From 0:59 to 1:03 at 6 frames a second, in a clip that begins at 0:58; frames from 33 on have no PNG.
    acting = [6 <= position <= 29 for position in positions]
    assert (benchmark.masks(first)[0].any(axis=(1, 2)) == acting).all()
    assert (benchmark.masks(last)[0].any(axis=(1, 2)) == [6 <= position < 33 for position in positions]).all()
    png = groundmore / "annotations" / "match_a_0058_0104" / "masks" / f"frame_{positions[5]:06d}.png"
    assert np.array_equal(benchmark.masks(first, [5])[0, 0], cv2.imread(str(png), cv2.IMREAD_GRAYSCALE) == 1)
    png.rename(png.with_name(f"{positions[5]:07d}.png"))
    assert benchmark.masks(first, [5]).any()


def test_groundmore_under_the_names_of_its_script(groundmore):
    first = open_benchmark("groundmore", groundmore).samples[0]
    (groundmore / "annotations").rename(groundmore / "groundmore_videos")
    (groundmore / "test_v2.json").rename(groundmore / "groundmore_test.json")
    benchmark = open_benchmark("groundmore", groundmore)
    assert benchmark.samples[0].frames == first.frames and benchmark.masks(benchmark.samples[0]).any()


def test_a_question_without_times_is_named(groundmore):
    path = groundmore / "test_v2.json"
    content = json.loads(path.read_text())
    content["videos"]["match_a_0058_0104"]["questions"]["0"]["action_start"] = "x"
    write_json(path, content)
    with pytest.raises(
        DataError, match=r"match_a_0058_0104, expression 0: its video's name and its action have no times"
    ):
        open_benchmark("groundmore", groundmore)


def test_reasonseg(reasonseg):
    benchmark = open_benchmark("reasonseg", reasonseg)
    assert [sample.sample_id for sample in benchmark.samples] == [f"image_{n}/0" for n in range(4)]
    first, old, _, absent = benchmark.samples
    assert (first.frames, first.category, old.category, old.expression) == (
        ("image_0",),
        "long",
        "short",
        "where is the café?",
    )
    assert (first.object_ids, first.type_id, absent.object_ids, absent.type_id) == (("0", "1"), 1, (), 2)
    for sample in benchmark.samples:
        target, ignored = GOLDEN["reasonseg"]["samples"][sample.sample_id]["labels"]  # pixels, by LISA's code
        labels = benchmark.label_map(sample)[0]
        assert ((labels == 1).sum(), (labels == 255).sum()) == (target, ignored)
        assert np.array_equal(benchmark.masks(sample).any(axis=0)[0], labels == 1)


def test_an_image_is_trained_on_as_a_clip_of_one_frame(reasonseg):
    data = build_training_data("reasonseg", reasonseg, keyframe_resize=56, sampled_frames=6)
    assert data.benchmark.split == "train" and len(data) == 6  # three images with a target, two texts each
    example = data.example(0, seed=1)
    assert (len(example.images), example.ground_truth.timestamps, example.ground_truth.masks.shape) == (
        1,
        [0],
        (1, 56, 56),
    )
    assert len(example.ground_truth.boxes[0]) == 2 and example.ground_truth.masks.any()


def test_images_and_videos_are_mixed(reasonseg, long_rvos):
    mix = {
        "reasonseg": {"train_files": str(reasonseg), "weight": 1},
        "long_rvos": {"train_files": str(long_rvos), "meta_file": "valid", "weight": 2},
    }
    data = build_training_data(mix=mix, meta_file=None, keyframe_resize=56, sampled_frames=4)
    assert data.counts == {"reasonseg": 6, "long_rvos": 12}
    image, video = data.example(0, seed=1), data.example(6, seed=1)
    assert (image.sample_id, len(image.images)) == ("reasonseg:image_0/0", 1)
    assert video.sample_id == "long_rvos:v/0" and len(video.images) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": []}, r"image_0: .*image_0\.json: its text is a list of 0, not a list of at least one"),
        ({"is_sentence": "yes"}, r"is_sentence is 'yes', neither true nor false"),
        ({"shapes": [{"label": 3, "points": []}]}, r"a shape's label is 3, not a text"),
        ({"shapes": [{"label": "target", "points": [[1, 2], [3]]}]}, r"a shape's points are no list of pairs"),
        ({"shapes": [{"label": "target", "points": [[1, float("nan")]]}]}, r"no list of pairs in a picture"),
    ],
)
def test_what_is_wrong_with_an_image_s_annotation_is_named(reasonseg, change, says):
    path = reasonseg / "val" / "image_0.json"
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(DataError, match=says):
        open_benchmark("reasonseg", reasonseg)
    rest = open_benchmark("reasonseg", reasonseg, check=False)
    assert [sample.video for sample in rest.samples] == ["image_1", "image_2", "image_3"]


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("val/image_1.jpg", r"reasonseg image_1/0: frame is missing: .*image_1\.jpg"),
        ("val", r"annotation file is missing: .*val"),
    ],
)
def test_what_reasonseg_lacks_is_named(reasonseg, lost, says):
    (reasonseg / lost).rename(reasonseg / "elsewhere")
    with pytest.raises(DataError, match=says):
        open_benchmark("reasonseg", reasonseg)


def test_image_ious():
    labels = np.array([[1, 1, 0, 255]], np.uint8)
    assert image_iou(np.array([[0, 7, 7, 7]]), labels) == (1 / (3 + 1e-5), 1, 3)
    assert image_iou(np.array([[0, 0, 0, 7]]), labels * (labels == 255)) == (1.0, 0, 0)
    assert total_iou([{"intersection": 1, "union": 3}, {"intersection": 2, "union": 5}]) == pytest.approx(3 / 8)
    assert np.isnan(total_iou([]))
