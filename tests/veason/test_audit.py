import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from small_revos import FRAMES, HEIGHT, WIDTH, rectangle, rle_json, write_frames
from toy_layouts import write_mevis, write_vicas

from veason import masks
from veason.audit.checks import FINDING_KINDS, flicker_frames
from veason.audit.command import audit, excluded_samples, main, open_splits
from veason.data import detect_benchmark, open_benchmark
from veason.data.revos import ReVOS
from veason.data.training import KeyframeTrainingData
from veason.errors import DataError
from veason.toy.layout_writers import write_reasonvos
from veason.toy.world import make_videos


def edit_masks(root, **changes):
    path = root / "mask_dict.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), **{name[1:]: track for name, track in changes.items()}})
    )


def found(root):
    """kind -> the expressions that it affects."""
    kinds = {}
    for finding in audit(ReVOS(root, "train")):
        kinds.setdefault(finding.kind, set()).update(finding.sample_ids)
    return kinds


def test_a_valid_set_has_no_findings(revos):
    assert found(revos) == {}


def frame(root, number):
    return root / "JPEGImages" / "a" / f"{number:05d}.jpg"


def track_of(mask, count=FRAMES):
    return [rle_json(mask)] * count


BOX = rectangle(4, 10, 20, 30)
DAMAGE = [
    ("missing_frame", lambda root: frame(root, 5).unlink(), {"a/0", "a/1", "a/2"}),
    ("missing_frame", lambda root: (root / "JPEGImages" / "b").rename(root / "JPEGImages" / "z"), {"b/0"}),
    ("extra_frame", lambda root: frame(root, 99).write_bytes(b"x"), {"a/0", "a/1", "a/2"}),
    ("frame_size", lambda root: Image.new("RGB", (30, 20)).save(frame(root, 11)), {"a/0", "a/1", "a/2"}),
    ("unreadable_frame", lambda root: frame(root, 0).write_bytes(b"x"), {"a/0", "a/1", "a/2"}),
    ("short_list", lambda root: edit_masks(root, _0=track_of(BOX, FRAMES - 2)), {"a/0", "a/1"}),
    ("long_list", lambda root: edit_masks(root, _1=track_of(BOX, FRAMES + 1)), {"a/1"}),
    ("mask_size", lambda root: edit_masks(root, _0=track_of(np.ones((9, 9), np.uint8))), {"a/0", "a/1"}),
    (
        "unreadable_mask",
        lambda root: edit_masks(root, _1=[{"size": [HEIGHT, WIDTH], "counts": "zzzz"}] * FRAMES),
        {"a/1"},
    ),
    (
        "flicker",
        lambda root: edit_masks(root, _0=[*track_of(BOX, 6), rle_json(rectangle(30, 50, 40, 70)), *track_of(BOX, 5)]),
        {"a/0", "a/1"},
    ),
]


@pytest.mark.parametrize(("kind", "damage", "affected"), DAMAGE)
def test_each_kind_of_damage_is_found_and_nothing_else(revos, kind, damage, affected):
    damage(revos)
    assert found(revos) == {kind: affected}


@pytest.mark.parametrize("track", [[None] * FRAMES, track_of(np.zeros((HEIGHT, WIDTH), np.uint8))])
def test_an_object_that_is_never_seen_is_found(revos, track):
    edit_masks(revos, _0=track)
    assert found(revos) == {"empty_target": {"a/0"}, "unseen_object": {"a/1"}}


def test_an_unknown_id_is_found(revos):
    path = revos / "mask_dict.json"
    tracks = json.loads(path.read_text())
    del tracks["2"]
    path.write_text(json.dumps(tracks))
    assert found(revos) == {"unknown_id": {"b/0"}}


def test_flicker_is_elsewhere_for_one_frame():
    here, there = masks.encode(rectangle(0, 0, 9, 9)), masks.encode(rectangle(20, 20, 29, 29))
    assert flicker_frames([here, here, there, here]) == [2]
    assert flicker_frames([here, here, there, there, here]) == []
    assert flicker_frames([here, here, None, here]) == []


def test_the_command_writes_a_report_and_an_exclusion_list_that_training_takes(revos, tmp_path, capsys):
    edit_masks(
        revos,
        _0=[*track_of(BOX, 6), rle_json(rectangle(30, 50, 40, 70)), *track_of(BOX, 5)],
        _1=track_of(np.ones((9, 9), np.uint8)),
    )
    (revos / "meta_expressions_valid_.json").unlink()
    output = tmp_path / "audit"
    assert main([str(revos), "--output", str(output), "--workers", "2"]) == 1
    said = capsys.readouterr().out
    assert "1 flicker" in said and "2 of 4 expressions to leave out" in said
    report = (output / "report.md").read_text()
    assert "| flicker | a mask is elsewhere for one frame | 1 | 1 | 2 | yes |" in report
    pictures = sorted(path.name for path in (output / "pictures").iterdir())
    assert pictures == ["flicker-01-a.jpg", "mask_size-01-a.jpg"] and all(
        f"pictures/{name}" in report for name in pictures
    )
    records = [json.loads(line) for line in (output / "findings.jsonl").read_text().splitlines()]
    assert {record["kind"] for record in records} == {"flicker", "mask_size"} and records[0]["frames"] == [6]
    assert (output / "exclude.txt").read_text() == "a/0  # flicker\na/1  # flicker, mask_size\n"
    data = KeyframeTrainingData(revos, exclude=output / "exclude.txt")
    assert [data.sample_id(index) for index in range(len(data))] == ["b/0"]


def test_a_valid_set_ends_with_zero(revos, tmp_path):
    command = [sys.executable, "-m", "veason.audit", str(revos), "--output", str(tmp_path / "audit")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "audit" / "exclude.txt").read_text() == ""


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds the files of none of revos" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "data folder is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("revos", ["meta_expressions_train_.json"]),
        ("reasonvos", ["meta_expressions_.json"]),
        ("mevis", ["valid_u/meta_expressions.json"]),
        ("vicas", ["annotations/v1.0/000001.json"]),
        ("refytvos", ["meta_expressions/valid/meta_expressions.json", "train/Annotations/v/0.png"]),
        ("refdavis17", ["meta_expressions/valid/meta_expressions.json", "valid/Annotations/v/0.png"]),
        ("long_rvos", ["valid/meta_expressions.json", "valid/Annotations/v/1/0.png", "train/meta_expressions.json"]),
        ("ref_sav", ["meta_expressions_valid.json"]),
        ("groundmore", ["groundmore_test.json"]),
        ("reasonseg", ["train/a.json", "train/a.jpg"]),
    ],
)
def test_a_data_set_is_known_by_its_files(tmp_path, name, files):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    assert detect_benchmark(tmp_path) == name


def test_png_truth_is_checked_too(tmp_path):
    root = tmp_path / "ReasonVOS"
    frames = write_frames(root / "JPEGImages" / "v", 3)
    expressions = [{"exp_text": "x", "obj_id": str(n), "exp_id": "0"} for n in (1, 2)]
    content = {"videos": {"v": {"source": "s", "frames": frames, "expressions": expressions}}}
    (root / "meta_expressions_.json").write_text(json.dumps(content))
    for n in (1, 2):
        (root / "Annotations" / f"s_v_{n}").mkdir(parents=True)
        for name in frames[: 3 if n == 1 else 2]:
            Image.fromarray(BOX * 255).save(root / "Annotations" / f"s_v_{n}" / f"{name}.png")
    (benchmark,) = open_splits("reasonvos", root)
    findings = audit(benchmark)
    assert {finding.kind for finding in findings} == {"unreadable_mask"}
    assert set(excluded_samples(findings)) == {"s_v_2/0"}


def test_frames_beside_the_annotated_ones_are_no_finding_where_they_belong(tmp_path):
    root = tmp_path / "ViCaS"
    write_frames(root / "video_frames" / "000012", 5)
    rle = rle_json(BOX)
    entries = [
        {"filename": f"{t:05d}.jpg", "is_gt": t % 2 == 0, "track_ids": [5], "mask_rles": [rle]} for t in range(5)
    ]
    referrals = [{"prompt": "it", "track_ids": [5]}]
    content = {"image_size": [HEIGHT, WIDTH], "object_referrals": referrals, "segmentations": entries}
    for path, value in (("annotations/v1.0/000012.json", content), ("splits/v1.0/val.json", [12])):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(json.dumps(value))
    (benchmark,) = open_splits("vicas", root)
    assert audit(benchmark) == []
    (root / "video_frames" / "000012" / "00002.jpg").unlink()
    assert [finding.kind for finding in audit(benchmark)] == ["missing_frame"]


def test_a_report_that_cannot_be_written_is_one_line(revos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(revos), "--output", str(tmp_path / "file" / "audit")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path / 'file' / 'audit'}: Not a directory"


def test_splits_without_any_annotation_are_an_error(tmp_path):
    with pytest.raises(DataError, match="annotation file is missing"):
        open_splits("revos", tmp_path)


def test_every_kind_says_what_it_means():
    assert all(meaning and isinstance(excluded, bool) for meaning, excluded in FINDING_KINDS.values())


def test_several_processes_also_audit_what_has_no_masks(tmp_path):
    write_mevis(tmp_path, make_videos("shown", 2, seed=1, frames=5, queries=3))
    splits = open_splits("mevis", tmp_path)
    assert [split.has_ground_truth for split in splits].count(False) == 1
    for split in splits:
        assert audit(split, workers=2) == []


def test_a_first_frame_that_is_missing_is_listed_where_the_annotation_tells_no_size(tmp_path):
    videos = make_videos("shown", 2, seed=1, frames=5, queries=3)
    write_reasonvos(tmp_path, videos)
    (tmp_path / "JPEGImages" / videos[0].name / "00000.jpg").unlink()
    for split in open_splits("reasonvos", tmp_path):
        assert {finding.kind for finding in audit(split)} == {"missing_frame"}
    shutil.rmtree(tmp_path / "JPEGImages" / videos[0].name)
    for split in open_splits("reasonvos", tmp_path):
        assert "missing_frame" in {finding.kind for finding in audit(split)}


def test_a_video_without_its_annotation_is_not_a_missing_split(tmp_path):
    write_vicas(tmp_path, make_videos("shown", 2, seed=1, frames=5, queries=3))
    (tmp_path / "annotations" / "v1.0" / "000002.json").unlink()
    (split,) = open_splits("vicas", tmp_path)
    (finding,) = audit(split)
    assert (finding.kind, finding.sample_ids) == ("invalid_entry", ("000002",)) and "000002.json" in finding.detail
    with pytest.raises(DataError, match=r"000002\.json"):
        open_benchmark("vicas", tmp_path)
