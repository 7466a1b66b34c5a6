"""`veason predict` without models: what is written for one and several clips, and how much memory it takes."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from tests.veason.videos import moving, write_folder, write_video
from veason.answers import format_answer
from veason.errors import DataError
from veason.inference.model_options import ModelOptions
from veason.inference.prediction import FAILURE_MESSAGES
from veason.inference.segmenter import Segmenter
from veason.predict import command as predict
from veason.predict.clips import ClipRequest, output_folders, read_clips
from veason.toy import tiny_tracker
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION
from veason.tracking.sam2.tracker import Sam2Tracker
from veason.video.sources import open_folder

TOTAL, SIZE = 12, (57, 91)  # odd sides: the overlay has even ones
TEXTS = [format_answer("the \ud800 one", 5, [[56, 56, 280, 280], [300, 300, 500, 500]]), "no idea"]


@pytest.fixture
def written(tmp_path):
    frames = open_folder(write_folder(tmp_path / "in", TOTAL, SIZE))
    segmenter = Segmenter(ScriptedPolicy(*TEXTS), BoxTracker())
    clip = ClipRequest(str(tmp_path / "in"), ("the <b>ducks</b>", "the pond"))
    return tmp_path / "out", predict.predict_clip(segmenter, frames, clip, tmp_path / "out")


def test_everything_is_written(written):
    out, pages = written
    assert [page for page, _ in pages] == [out / "00" / "index.html", out / "01" / "index.html"]
    assert pages[0][1] == (
        "'the <b>ducks</b>': 2 objects, keyframe 5; in view on 12 of 12 frames, at most 29 % of the picture"
    )
    assert pages[1][1] == f"'the pond': {FAILURE_MESSAGES['no_answer']}"
    first, second = (json.loads((out / name / "result.json").read_text()) for name in ("00", "01"))
    assert (first["expression"], first["keyframe"], first["thinking"], first["failure"]) == (
        "the <b>ducks</b>",
        5,
        "the \ud800 one",
        None,
    )
    assert (second["expression"], second["failure"]) == ("the pond", "no_answer")
    assert {"thinking", "tracking", "drawing"} == set(first["seconds"])
    for name, rle in zip(first["frames"], first["masks"], strict=True):
        png = np.asarray(Image.open(out / "00" / "masks" / f"{name}.png"))
        np.testing.assert_array_equal(coco.decode(rle) * 255, png)
        objects = np.asarray(Image.open(out / "00" / "objects" / f"{name}.png"))
        for index, (x1, y1, x2, y2) in enumerate(first["boxes"], start=1):
            assert (objects[y1:y2, x1:x2] == index).all() and (objects == index).sum() == (y2 - y1) * (x2 - x1)
        np.testing.assert_array_equal(objects > 0, png > 0)
    assert len(first["masks"]) == len(second["masks"]) == TOTAL and not any(coco.area(rle) for rle in second["masks"])
    assert (out / "00" / "keyframe.jpg").is_file() and not (out / "01" / "keyframe.jpg").exists()
    assert not (out / "01" / "objects").exists()
    with av.open(str(out / "00" / "overlay.mp4")) as overlay:
        shown = [frame.to_ndarray(format="rgb24") for frame in overlay.decode(video=0)]
    assert len(shown) == TOTAL and all(side % 2 == 0 for side in shown[0].shape[:2])


def test_the_archive_and_the_coco_file_hold_the_masks(written):
    out, _ = written
    content = json.loads((out / "00" / "masks_coco.json").read_text())
    assert len(content["images"]) == TOTAL and len(content["annotations"]) == 2 * TOTAL
    with zipfile.ZipFile(out / "00" / "masks.zip") as archive:
        assert len(archive.namelist()) == 2 * TOTAL
        for annotation in content["annotations"]:
            name = f"objects/{content['images'][annotation['image_id']]['file_name']}"
            objects = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            mask = coco.decode(annotation["segmentation"])
            np.testing.assert_array_equal(mask, objects == annotation["track_id"])
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
    assert len({annotation["id"] for annotation in content["annotations"]}) == 2 * TOTAL


def test_the_results_of_an_earlier_call_stay(tmp_path):
    """A further question about a clip is no reason to lose the answer to the first one."""
    good = format_answer("here", 1, [[56, 56, 280, 280], [0, 0, 60, 60]])
    frames, shorter = (open_folder(write_folder(tmp_path / name, count)) for name, count in (("in", 4), ("short", 3)))
    out = tmp_path / "out"
    predict.predict_clip(
        Segmenter(ScriptedPolicy(good, good), BoxTracker()), frames, ClipRequest("in", ("one", "two")), out
    )
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ((page, _),) = predict.predict_clip(
        Segmenter(ScriptedPolicy("no idea"), BoxTracker()), shorter, ClipRequest("short", ("one",)), out
    )
    assert page == out / "02" / "index.html" and len(list((out / "02" / "masks").iterdir())) == 3
    assert {path: path.read_bytes() for path in before} == before


def test_masks_that_are_empty_or_nearly_so_are_no_success(tmp_path):
    """What was "1 object, keyframe 11." with a mask on one frame of twelve."""
    pixels = {"empty": {}, "nearly": {11: (slice(3, 5), slice(3, 6))}}
    for name, drawn in pixels.items():

        class Tracker(BoxTracker):
            def track(self, read_frame, total, keyframe, boxes, drawn=drawn):
                for index in range(total):
                    mask = np.zeros(read_frame(index).shape[:2], bool)
                    if index in drawn:
                        mask[drawn[index]] = True
                    yield index, mask

        frames = open_folder(write_folder(tmp_path / "in" / name, TOTAL, (100, 100)))
        segmenter = Segmenter(ScriptedPolicy(format_answer("", 11, [[56, 56, 280, 280]])), Tracker(), notice="Toys.")
        ((page, said),) = predict.predict_clip(segmenter, frames, ClipRequest("in", ("it",)), tmp_path / name)
        shown, content = page.read_text(), json.loads(page.with_name("result.json").read_text())
        if drawn:
            assert "1 object, keyframe 11; in view on 1 of 12 frames, at most 0.06 % of the picture. The masks" in said
            assert "The masks are nearly empty" in content["warning"] and max(content["coverage"]) == 6 / 10_000
        else:
            assert "1 object, keyframe 11; in view on none of 12 frames. The masks are empty on every frame" in said
            assert 'class="outcome failed"' in shown and not any(content["coverage"])
        assert content["warning"].split(":")[0] in shown and '<p class="notice">Toys.</p>' in shown


def test_the_page_says_what_seconds_and_boxes_of_the_reasoning_are(written):
    out, _ = written
    shown = (out / "00" / "index.html").read_text()
    assert "a second means a frame of the video, as in training" in shown
    assert "boxes are in pixels of the 560 x 560 picture that the policy saw" in shown
    assert "keyframe: frame 5, 0.5 s of the video" in shown and "pixels of the video" in shown
    relative = Segmenter(ScriptedPolicy(), BoxTracker(), timestamp_mode="relative")
    relative.coordinate_range = 1000
    assert "a position among the frames" in relative.unit_explanation and "parts of 1000" in relative.unit_explanation


def test_memory_does_not_grow_with_the_video():
    """160 frames that would take 49 MB, and 16 MB of masks, through a real tracker to run-length masks."""
    resident = []

    class Frames(Sequence):
        def __len__(self):
            return 160

        def __getitem__(self, index):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * resource.getpagesize() / 1e6)
            return np.full((320, 320, 3), index % 256, np.uint8)

    tracker = Sam2Tracker(tiny_tracker.build_tracker_model(tiny_tracker.TrackerSize(image_size=32)), max_frames=16)
    answer = format_answer("", 100, [[100, 100, 400, 400]])
    (result,) = Segmenter(ScriptedPolicy(answer), tracker).segment_all(Frames(), ["x"])
    assert len(result.tracks[0]) == 160 <= len(resident) < 190
    assert max(resident[80:]) - max(resident[:80]) < 12


def test_the_command_line_from_files_to_pages(tmp_path, monkeypatch, capfd):
    """Several clips of a list, with models that print and warn."""
    one, two = write_video(tmp_path / "one.mp4", moving(9)), write_folder(tmp_path / "two", 4)
    listed = tmp_path / "clips.jsonl"
    entries = [{"video": one.name, "expressions": ["the bar", "the rest"]}, {"video": str(two), "expression": "x"}]
    listed.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    script = [format_answer("a", 0, [[0, 0, 90, 90]]), format_answer("b", 1, []), "?"]

    def load_policy(_):
        os.write(2, b"noise of a C library\n")
        print("noise of a Python library")
        print("and its errors", file=sys.stderr)
        warnings.warn("deprecated", stacklevel=1)
        return ScriptedPolicy(*script)

    monkeypatch.setattr(ModelOptions, "load_policy", load_policy)
    monkeypatch.setattr(ModelOptions, "load_tracker", lambda _: BoxTracker())
    out = tmp_path / "out"
    assert predict.main(["--clips", str(listed), "--out", str(out), "--fps", "4"]) == 0
    captured = capfd.readouterr()
    assert "noise" not in captured.out + captured.err and "deprecated" not in captured.err
    assert "noise of a C library" in (out / predict.LIBRARY_LOG).read_text()
    lines = captured.err.splitlines()
    found = "1 object, keyframe 0; in view on 5 of 5 frames, at most"
    assert any(line.startswith(f"{out}/one/00/index.html: 'the bar': {found}") for line in lines)
    assert f"{out}/one/01/index.html: 'the rest': {FAILURE_MESSAGES['no_target']}" in lines
    assert f"{out}/two/00/index.html: 'x': {FAILURE_MESSAGES['no_answer']}" in lines
    for stage in ("decoding: 9 of 9", "loading the models: ", "tracking: 5 of 5", "drawing: 5 of 5"):
        assert any(line.startswith(stage) for line in lines), stage
    result = json.loads((out / "one" / "00" / "result.json").read_text())
    assert len(result["masks"]) == 5 and result["fps"] == 4
    assert result["source_frames"] == [0, 2, 4, 6, 8] and result["source_seconds"] == [0, 0.25, 0.5, 0.75, 1]
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_an_error_of_a_model_is_not_hidden(tmp_path, monkeypatch, capfd):
    path = write_video(tmp_path / "one.mp4", moving(9))

    def fail(_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ModelOptions, "load_policy", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict.main([str(path), "the bar", "--out", str(tmp_path / "out")])
    print("the console is back")
    captured = capfd.readouterr()
    assert "the console is back" in captured.out
    assert f"what the libraries printed is in {tmp_path / 'out' / predict.LIBRARY_LOG}" in captured.err


def test_which_clips_are_meant(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4\n\n# a comment\n/b/c.mp4\nsome/where.mp4\n")
    (tmp_path / "a.mp4").touch()
    assert read_clips([], ["x"], str(tmp_path / "list.txt")) == [
        ClipRequest(str(tmp_path / "a.mp4"), ("x",)),
        ClipRequest("/b/c.mp4", ("x",)),
        ClipRequest("some/where.mp4", ("x",)),
    ]
    assert read_clips([], [], None) == [ClipRequest(str(TOY_CLIP), (TOY_EXPRESSION,))]
    assert read_clips([], ["the ring"], None) == [ClipRequest(str(TOY_CLIP), ("the ring",))]
    clips = read_clips(["a/x.mp4", "b/x.mp4", "c/"], ["e"], None)
    assert output_folders(clips, Path("out")) == [Path("out/x"), Path("out/x_2"), Path("out/c")]
    assert output_folders(clips[:1], Path("out")) == [Path("out")]


def test_what_is_missing_is_said_before_anything_is_decoded_or_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "one.mp4", moving(3))
    monkeypatch.setattr(predict, "open_video", None)  # nothing is decoded
    Path("clips.jsonl").write_text(
        '{"video": "one.mp4", "expression": "x"}\n{"video": "some/two.mp4", "expression": "x"}'
    )
    Path("file").touch()
    for words, says in (
        (["--clips", "clips.jsonl"], f"clips.jsonl: there is no video some/two.mp4 (relative to {tmp_path} and to the"),
        (["the bar", "one.mp4"], "video is missing: the bar; one.mp4 exists: the video comes first, then the"),
        (["two.mp4", "the bar"], "video is missing: two.mp4"),
        (["one.mp4", "the bar", "--out", "file"], "--out file: this is a file, not a folder"),
        (["one.mp4", "the bar", "--out", "file/x"], f"--out file/x: {tmp_path}/file is a file, not a folder"),
    ):
        assert predict.main(words) == 2
        assert says in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.jsonl", "file", "one.mp4"]


def test_the_toy_clip_of_an_installed_package_is_missed(monkeypatch):
    monkeypatch.setattr("veason.predict.clips.TOY_CLIP", Path("/nowhere/toy_clip.mp4"))
    with pytest.raises(DataError, match=r"toy_clip\.mp4 is missing: a clone of the repository has it"):
        read_clips([], [], None)


def test_positional_and_named_arguments_are_one():
    words = (
        ["a.mp4", "x", "y"],
        ["a.mp4", "--expression", "x", "--expression", "y"],
        ["--video", "a.mp4", "--expression", "x", "expression=y"],
        ["video=a.mp4", "expression=x", "expression=y"],
    )
    for given in words:
        options = predict.read_options(given)
        assert (options.video, options.expression) == (["a.mp4"], ["x", "y"])
