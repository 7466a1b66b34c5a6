"""Three forms of the same data give the same data set."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.veason.importing.drawn import (
    FRAMES,
    HEIGHT,
    VIDEOS,
    WIDTH,
    captions,
    numbers,
    picture,
    read_set,
    read_tracks,
    run,
    square,
    write_coco_source,
    write_jsonl_source,
    write_png_source,
)
from veason.data import open_benchmark
from veason.data.training import KeyframeTrainingData


def expect_the_squares(output, first="1", second="2", frames=range(FRAMES)):
    tracks = read_tracks(output)
    assert list(tracks) == [f"{video}/{name}" for video in VIDEOS for name in (first, second)]
    for video in VIDEOS:
        for number, name in ((1, first), (2, second)):
            for found, t in zip(tracks[f"{video}/{name}"], frames, strict=True):
                expected = square(video, number, t)
                assert (found is None) == (expected is None)
                assert found is None or np.array_equal(found, expected)


def test_png_masks(tmp_path):
    output = tmp_path / "out"
    source = write_png_source(tmp_path / "in")
    assert run(source, "--output", output, "--captions", captions(source)) == 0
    expect_the_squares(output)
    meta = read_set(output)["a"]
    assert (meta["height"], meta["width"]) == (HEIGHT, WIDTH)
    assert meta["frames"] == [f"{t:05d}" for t in range(FRAMES)] and meta["source_frames"] == list(range(FRAMES))
    assert meta["expressions"]["2"] == {"exp": "the blue square", "obj_id": ["2"], "anno_id": ["a/2"], "type_id": 0}
    for t in range(FRAMES):  # 9.jpg comes before 10.jpg
        stored = np.asarray(Image.open(output / "JPEGImages" / "a" / f"{t:05d}.jpg")).astype(int)
        assert np.abs(stored - picture("a", t)).mean() < 6


def test_coco_polygons_and_rles(tmp_path, capsys):
    output = tmp_path / "out"
    source = write_coco_source(tmp_path / "in")
    assert run(source, "--output", output, "--category_expressions") == 0
    expect_the_squares(output)
    assert {each["exp"] for each in read_set(output)["b"]["expressions"].values()} == {"red square", "blue square"}
    assert "24 frames, 4 objects, 4 expressions (4 referring)" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["videos", "JPEGImages/day 1"])
@pytest.mark.parametrize("prefix", ["", "videos/"])  # of the names in the file
def test_coco_with_the_videos_in_a_folder(tmp_path, folder, prefix):
    output, source = tmp_path / "out", write_coco_source(tmp_path / "in")
    (source / folder).mkdir(parents=True)
    for video in VIDEOS:
        shutil.move(source / video, source / folder / video)
    inner = folder.partition("/")[2]
    content = json.loads((source / "annotations.json").read_text())
    for image in content["images"]:
        image["file_name"] = "/".join(filter(None, (prefix.strip("/"), inner, image["file_name"])))
    (source / "annotations.json").write_text(json.dumps(content))
    assert run(source, "--output", output) == 0
    assert list(read_tracks(output)) == ["/".join(filter(None, (inner, v, n))) for v in VIDEOS for n in "12"]


@pytest.mark.parametrize("folder", ["", "videos/"])  # in the source, and in the names of the file
def test_coco_of_one_folder_of_pictures(tmp_path, folder):
    output, source = tmp_path / "out", write_coco_source(tmp_path / "in")
    content = json.loads((source / "annotations.json").read_text())
    content["images"] = [image for image in content["images"] if image["file_name"].startswith("a/")]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    for image in content["images"]:
        image["file_name"] = folder + image["file_name"].removeprefix("a/")
    (source / "annotations.json").write_text(json.dumps(content))
    (source / folder).mkdir(exist_ok=True)
    for path in (source / "a").iterdir():
        path.rename(source / folder / path.name)
    shutil.rmtree(source / "b")
    assert run(source, "--output", output) == 0
    for t, found in enumerate(read_tracks(output)[f"{folder.strip('/') or 'in'}/1"]):
        assert np.array_equal(found, square("a", 1, t))


def test_coco_videos_beside_a_folder_of_videos_keep_their_paths(tmp_path):
    output, source = tmp_path / "out", write_coco_source(tmp_path / "in")
    (source / "videos").mkdir()
    shutil.move(source / "b", source / "videos" / "b")
    content = json.loads((source / "annotations.json").read_text())
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("b/", "videos/b/")
    (source / "annotations.json").write_text(json.dumps(content))
    assert run(source, "--output", output) == 0
    assert sorted(read_set(output)) == ["a", "videos/b"]


def test_coco_without_sizes_is_taken_and_a_polygon_is_clipped_to_the_frame(tmp_path):
    output, source = tmp_path / "out", write_coco_source(tmp_path / "in")
    content = json.loads((source / "annotations.json").read_text())
    for image in content["images"]:
        del image["height"], image["width"]
    content["annotations"][0]["segmentation"] = [[60, 40, 90, 40, 90, 90, 60, 90], [70, 1, 80, 1, 80, 9]]
    (source / "annotations.json").write_text(json.dumps(content))
    assert run(source, "--output", output) == 0
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[40:, 60:] = 1
    assert np.array_equal(read_tracks(output)["a/1"][0], expected)


def test_a_size_of_youtube_vis_that_is_not_that_of_the_frames(tmp_path, capsys):
    source = write_coco_source(tmp_path / "in")
    videos = [{"id": 4, "file_names": [f"a/{t}.jpg" for t in range(FRAMES)], "height": 96, "width": 128}]
    tracks = [{"id": 1, "video_id": 4, "segmentations": [[[1, 1, 9, 1, 9, 9]]] * FRAMES}]
    (source / "annotations.json").write_text(json.dumps({"videos": videos, "annotations": tracks}))
    assert run(source, "--output", tmp_path / "out") == 2
    assert "video 4: annotated at 96x128 pixels, video a has frames of 48x64" in capsys.readouterr().err


def test_coco_without_tracks_takes_a_category_as_one_object(tmp_path):
    output = tmp_path / "out"
    source = write_coco_source(tmp_path / "in", tracks=False)
    content = json.loads((source / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    (source / "annotations.json").write_text(json.dumps(content))
    assert run(source, "--output", output) == 0
    for t, found in enumerate(read_tracks(output)["a/red_square"]):
        assert np.array_equal(found, numbers("a", t) > 0)


def test_coco_by_video_id_and_frame_index(tmp_path):
    output, source = tmp_path / "out", write_coco_source(tmp_path / "in")
    content = json.loads((source / "annotations.json").read_text())
    content["videos"] = [{"id": 7, "name": "a"}, {"id": 8, "name": "b"}]
    for image in content["images"]:
        video, _, name = image["file_name"].partition("/")
        image |= {"file_name": f"export_{image['id']}x.png", "video_id": 7 + VIDEOS.index(video)}
        image["frame_index"] = int(name.partition(".")[0])
    (source / "annotations.json").write_text(json.dumps(content))
    assert run(source, "--output", output) == 0
    expect_the_squares(output)


def test_youtube_vis(tmp_path):
    output, source = tmp_path / "out", write_jsonl_source(tmp_path / "in").parent
    lines = [json.loads(line) for line in (source / "lines.jsonl").read_text().splitlines()]
    videos = [{"id": n, "file_names": [f"{v}/{t}.jpg" for t in range(FRAMES)]} for n, v in enumerate(VIDEOS)]
    tracks = [
        {
            "id": n,
            "video_id": VIDEOS.index(line["video"]),
            "category_id": 1,
            "segmentations": list(line["masks"].values()),
        }
        for n, line in enumerate(line for line in lines if "masks" in line)
    ]
    content = {"videos": videos, "annotations": tracks, "categories": [{"id": 1, "name": "square"}]}
    (source / "vis.json").write_text(json.dumps(content))
    assert run(source, "--output", output, "--category_expressions") == 0
    found = read_tracks(output)
    assert list(found) == ["a/0", "a/1", "b/2", "b/3"]
    assert np.array_equal(found["b/2"][3], square("b", 1, 3)) and found["b/3"][7] is None
    expression = read_set(output)["b"]["expressions"]["0"]
    assert expression["exp"] == "square" and expression["anno_id"] == ["b/2", "b/3"]


def test_json_lines(tmp_path):
    output = tmp_path / "out"
    assert run(write_jsonl_source(tmp_path / "in"), "--output", output) == 0
    expect_the_squares(output)
    expressions = list(read_set(output)["a"]["expressions"].values())
    assert [(each["exp"], each["type_id"], each["anno_id"]) for each in expressions] == [
        ("the red square", 0, ["a/1"]),
        ("the blue square", 0, ["a/2"]),
        ("both squares", 1, ["a/1", "a/2"]),
        ("a cat", 2, []),
    ]


@pytest.mark.parametrize("shape", ["list", "polygon", "png", "uncompressed"])
def test_shapes_of_masks_in_json_lines(tmp_path, shape):
    path = write_jsonl_source(tmp_path / "in")
    output, source = tmp_path / "out", path.parent
    entries = []
    for t in range(FRAMES):
        mask = square("a", 1, t)
        Image.fromarray(mask * 255).save(source / f"mask{t}.png")
        runs = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=0))
        counts = np.diff(np.concatenate(([0], runs, [HEIGHT * WIDTH]))).tolist()
        x1, y1, x2, y2 = 2 + 3 * t, 4, 14 + 3 * t, 20
        entries.append(
            {
                "list": {"size": [HEIGHT, WIDTH], "counts": counts},
                "uncompressed": {"size": [HEIGHT, WIDTH], "counts": counts},
                "polygon": [x1, y1, x2, y1, x2, y2, x1, y2],
                "png": f"mask{t}.png",
            }[shape]
        )
    given = entries if shape == "list" else {f"{t}": each for t, each in enumerate(entries)}
    path.write_text(json.dumps({"video": "a", "expression": "it moves", "masks": given}))
    shutil.rmtree(source / "b")
    assert run(path, "--output", output, "--val_ratio", 0) == 0
    for t, found in enumerate(read_tracks(output)["a/1"]):
        assert np.array_equal(found, square("a", 1, t))


def test_black_and_white_masks_are_object_1(tmp_path):
    output, source = tmp_path / "out", write_png_source(tmp_path / "in", palette=False)
    for video in VIDEOS:
        for path in (source / "Annotations" / video).iterdir():
            Image.fromarray((np.asarray(Image.open(path)) == 1) * np.uint8(255)).save(path)
    text = tmp_path / "captions.txt"
    text.write_text('a 1 "the red square"\nb 1 "the \\"red\\" one"\n')
    assert run(source, "--output", output, "--captions", text) == 0
    assert list(read_tracks(output)) == ["a/1", "b/1"]


def test_void_pixels_belong_to_nobody(tmp_path):
    output, source = tmp_path / "out", write_png_source(tmp_path / "in", palette=False)
    path = source / "Annotations" / "a" / "0.png"
    values = np.asarray(Image.open(path)).copy()
    values[:2] = 255
    Image.fromarray(values).save(path)
    assert run(source, "--output", output) == 0
    expect_the_squares(output)


def test_davis_keeps_its_resolution_folder_out_of_the_names(tmp_path):
    output, source = tmp_path / "out", write_png_source(tmp_path / "in")
    for name in ("JPEGImages", "Annotations"):
        shutil.move(source / name, source / "moved")
        (source / name).mkdir()
        shutil.move(source / "moved", source / name / "480p")
    assert run(source, "--output", output) == 0
    expect_the_squares(output)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", "video,object,expression,type\na,1,the red square,\na,1 2,both,reasoning\nb,,a cat,absent\n"),
        ("c.tsv", "video\tobject\texpression\ttype\na\t1\tthe red square\t0\na\t1;2\tboth\t1\nb\t\ta cat\t2\n"),
        (
            "c.json",
            json.dumps(
                {
                    "videos": {
                        "a": {
                            "expressions": {
                                "0": {"exp": "the red square", "obj_id": "1"},
                                "1": {"exp": "both", "obj_id": [1, 2], "type_id": 1},
                            }
                        },
                        "b": {"expressions": [{"exp_text": "a cat", "obj_id": [], "type_id": 2}]},
                    }
                }
            ),
        ),
    ],
)
def test_forms_of_captions(tmp_path, name, content):
    output, source = tmp_path / "out", write_png_source(tmp_path / "in")
    (source / name).write_text(content)
    assert run(source, "--output", output, "--captions", source / name) == 0
    found = read_set(output)
    assert [(e["exp"], e["obj_id"], e["type_id"]) for e in found["a"]["expressions"].values()] == [
        ("the red square", ["1"], 0),
        ("both", ["1", "2"], 1),
    ]
    assert [(e["exp"], e["obj_id"], e["type_id"]) for e in found["b"]["expressions"].values()] == [("a cat", [], 2)]


def test_an_import_can_be_audited_trained_on_and_evaluated(tmp_path):
    output = tmp_path / "out"
    assert run(write_jsonl_source(tmp_path / "in"), "--output", output, "--val_ratio", 0.5) == 0
    data = KeyframeTrainingData(output, keyframe_resize=56)
    assert len(data) == 3 and data.example(0, 0).ground_truth.masks.any()
    validation = open_benchmark("revos", output)
    assert len({sample.video for sample in validation.samples}) == 1
    assert {sample.video for sample in validation.samples}.isdisjoint(sample.video for sample in data.samples)
    foreground = validation.foreground(validation.samples[0])
    assert np.array_equal(foreground[0] > 0, numbers(validation.samples[0].video, 0) > 0)
    assert "left out by exclude.txt: 0 expressions" in (output / "audit" / "report.md").read_text()


def test_masks_without_captions_are_imported_and_audited(tmp_path, capsys):
    output = tmp_path / "out"
    assert run(write_png_source(tmp_path / "in"), "--output", output) == 0
    printed = capsys.readouterr().out
    assert "0 expressions" in printed and "veason data describe" in printed
    assert "revos_objects train: 1 videos, 2 expressions" in (output / "audit" / "report.md").read_text()
