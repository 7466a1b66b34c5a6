"""What a person can get wrong ends in one line that names it, before anything is written or loaded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.veason.importing.drawn import (
    FRAMES,
    run,
    write_coco_source,
    write_jsonl_source,
    write_pictures,
    write_png_source,
)


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def nothing(_):
    """Changes nothing."""


def written(path, content):
    """Writes a file of a case; [], which adds no argument."""
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return []


def coco(change=nothing, **options):
    def make(folder):
        source = write_coco_source(folder / "in", **options)
        change_json(source / "annotations.json", change)
        return [source]

    return make


def lines(*added, **changed):
    def make(folder):
        path = write_jsonl_source(folder / "in")
        first = json.loads(path.read_text().splitlines()[0]) | changed
        path.write_text("\n".join([json.dumps(first), *map(json.dumps, added)]))
        return [path]

    return make


def png(change=nothing, *options):
    def make(folder):
        source = write_png_source(folder / "in", palette=False)
        change(source)
        return [source, *(option.format(folder=folder) for option in options)]

    return make


def text(name, content):
    def make(folder):
        source = write_png_source(folder / "in")
        (folder / name).write_text(content)
        return [source, "--captions", folder / name]

    return make


def white_masks(words):
    """Makes every mask of a PNG source 0 or 255."""
    for path in (words[0] / "Annotations").rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    return words


def rename_masks(source, suffix):
    for path in (source / "Annotations").rglob("*.png"):
        path.rename(path.with_suffix(suffix))


def first(key, **values):
    return lambda content: content[key][0].update(values)


def picture(source, name, mode="L", size=(64, 48)):
    Image.new(mode, size, 1 if mode == "L" else (1, 2, 3)).save(source / name)


CASES = {
    "no source": (lambda folder: [folder / "nothing"], "SOURCE is missing"),
    "an empty folder": (lambda folder: [(folder / "in").mkdir() or folder / "in"], "neither a folder Annotations"),
    "videos alone": (lambda folder: [write_pictures(folder / "in") or folder / "in"], "neither a folder Annotations"),
    "png and coco": (
        png(lambda source: (source / "x.json").write_text('{"images": [], "annotations": []}')),
        "holds both PNG masks and a COCO file",
    ),
    "two coco files": (
        lambda f: [write_coco_source(f / "in"), *written(f / "in/b.json", '{"images": [], "annotations": []}')],
        "are both COCO files",
    ),
    "broken json": (
        lambda f: [write_coco_source(f / "in"), *written(f / "in/annotations.json", "{")],
        "annotation file is not JSON",
    ),
    "no videos": (png(nothing, "--videos", "{folder}/no"), "--videos is missing"),
    "no annotations": (png(nothing, "--annotations", "{folder}/no"), "--annotations is missing"),
    "a format of a file": (png(nothing, "--format", "jsonl"), "--format jsonl takes a file"),
    "a format of a folder": (lambda f: [*lines()(f), "--format", "coco"], "--format coco takes a folder"),
    "an unknown format": (png(nothing, "--format", "voc"), "invalid choice: 'voc'"),
    "fps of zero": (png(nothing, "--fps", "0"), "--fps 0"),
    "fps that is no number": (png(nothing, "--fps", "fast"), "invalid float value: 'fast'"),
    "fps nan": (png(nothing, "--fps", "nan"), "--fps nan"),
    "all for validation": (png(nothing, "--val_ratio", "1"), "--val_ratio 1"),
    "a negative first frame": (png(nothing, "--first_frame", "-1"), "--first_frame -1"),
    "output is the source": (png(nothing, "--output", "{folder}/in"), "is the source itself"),
    "output is a file": (png(lambda s: (s.parent / "o").write_text(""), "--output", "{folder}/o"), "is a file"),
    "output holds other things": (
        png(lambda s: ((s.parent / "o").mkdir(), (s.parent / "o/x").write_text("")), "--output", "{folder}/o"),
        "holds files that no import made",
    ),
    "video files without fps": (coco(video_files=True), "give --fps"),
    "a video that is none": (
        lambda f: [*coco(video_files=True)(f), "--fps", "1", *written(f / "in/a.mp4", b"x")],
        "cannot be read as a video",
    ),
    "two videos of one name": (
        lambda f: [*coco(video_files=True)(f), "--fps", "1", *written(f / "in/a.mov", b"")],
        "would both be video 'a'",
    ),
    # PNG
    "a mask of no video": (png(lambda s: (s / "JPEGImages/a").rename(s / "JPEGImages/z")), "there is no video 'a'"),
    "a mask of no frame": (png(lambda s: picture(s, "Annotations/a/77.png")), "77.png: video"),
    "a mask of another size": (png(lambda s: picture(s, "Annotations/a/3.png", size=(9, 7))), "mask of 7x9 pixels"),
    "a mask in colours": (png(lambda s: picture(s, "Annotations/a/3.png", "RGB")), "is a picture in colours"),
    "a broken mask": (png(lambda s: (s / "Annotations/a/3.png").write_bytes(b"x")), "mask cannot be read"),
    "a broken frame": (png(lambda s: (s / "JPEGImages/a/3.jpg").write_bytes(b"x")), "frame cannot be read"),
    "frames of two sizes": (png(lambda s: picture(s, "JPEGImages/a/3.jpg", "RGB", (9, 7))), "frame 3 is 7x9"),
    "masks without an object": (
        png(lambda s: [Image.fromarray(np.zeros((48, 64), np.uint8)).save(p) for p in (s / "Annotations/a").iterdir()]),
        "video a: no object is annotated",
    ),
    # captions
    "no captions": (png(nothing, "--captions", "{folder}/no.csv"), "captions file is missing"),
    "captions of another form": (text("c.xlsx", ""), "is none of .json, .csv"),
    "captions without a column": (text("c.csv", "video,text\na,b\n"), "names no column expression, object"),
    "captions of no video": (text("c.csv", "video,object,expression\nz,1,it\n"), "video 'z' has no masks"),
    "captions of no object": (
        text("c.csv", "video,object,expression\na,7,it\n"),
        "is about object 7; the masks have the objects 1, 2",
    ),
    "captions of a white object": (
        lambda f: white_masks(text("c.csv", "video,object,expression\na,255,it\n")(f)),
        "is about object 255; the masks have the object 1 (a mask of 0 and 255 is object 1)",
    ),
    "masks as JPEGs": (png(lambda s: rename_masks(s, ".jpg")), "is a JPEG, which changes the object numbers"),
    "kept frames of no rate": (png(nothing, "--numbering", "kept"), "--numbering kept: needs --fps"),
    "an empty caption": (text("c.csv", "video,object,expression\na,1,\n"), "line 2: no expression"),
    "an unknown type": (text("c.csv", "video,object,expression,type\na,1,it,verb\n"), "type 'verb' is none of"),
    "an absent object": (text("c.csv", "video,object,expression,type\na,1,it,absent\n"), "type absent, but objects 1"),
    "a caption of nothing": (text("c.csv", "video,object,expression\na,,it\n"), "no object is named"),
    "a line without quotes": (text("c.txt", "a 1 the square\n"), "line 1 is not: video object"),
    "captions as a list": (text("c.json", "[1]"), "is no JSON object of videos"),
    "captions of text": (text("c.json", '{"a": "the square"}'), "is not {object number: text}"),
    "no caption at all": (text("c.json", "{}"), "holds no expression"),
    # COCO
    "an image of no video": (coco(first("images", file_name="z/0.jpg")), "image 0: there is no video 'z'"),
    "an image of no frame": (coco(first("images", file_name="a/99.jpg")), "video 'a' has no frame '99'"),
    "an image without id": (coco(lambda c: c["images"][0].pop("id")), "image 0 has no id"),
    "an annotation of no image": (coco(first("annotations", image_id=999)), "annotation 0: its image_id"),
    "neither mask nor box": (coco(first("annotations", segmentation=[])), "annotation 0 has neither"),
    "a polygon of two points": (coco(first("annotations", segmentation=[[1, 2, 3, 4]])), "polygon [1, 2, 3, 4] is not"),
    "a polygon of text": (coco(first("annotations", segmentation=[["a"] * 6])), "is not [x1, y1"),
    "a damaged rle": (coco(first("annotations", segmentation={"size": [48, 64], "counts": "0"})), "cannot be decoded"),
    "an rle of another size": (
        coco(first("annotations", segmentation={"size": [4, 6], "counts": [24]})),
        "mask of 4x6 pixels, frame of 48x64",
    ),
    "a size of all images that is not that of the frames": (
        coco(lambda c: [image.update(height=24, width=32) for image in c["images"]]),
        "annotations.json: image 0 (a/0.jpg): annotated at 24x32 pixels, video a has frames of 48x64 (height x width): "
        "export the annotation at the size of the frames",
    ),
    "a size of one image": (
        coco(lambda c: c["images"][17].update(width=65)),
        "image 17 (b/5.jpg): annotated at 48x65 pixels, video b has frames of 48x64",
    ),
    "a size for a video file": (
        lambda f: [*coco(first("images", height=96), video_files=True)(f), "--fps", "1"],
        "annotated at 96x64 pixels, video a has frames of 48x64",
    ),
    "a size that is text": (coco(first("images", height="48")), "height '48' and width 64 are no numbers"),
    "a polygon outside the frame": (
        coco(first("annotations", segmentation=[[70, 1, 80, 1, 80, 9], [1, 50, 9, 50, 9, 60]])),
        "polygon [70, 1, 80, 1, 80, 9] lies outside the frame of 48x64",
    ),
    # JSON lines
    "a polygon of a line outside the frame": (
        lines(masks={str(t): [1, 48, 9, 48, 9, 60] if t == 3 else [1, 1, 9, 1, 9, 9] for t in range(FRAMES)}),
        "lines.jsonl, line 1, object 1, frame 3: polygon [1, 48, 9, 48, 9, 60] lies outside the frame of 48x64",
    ),
    "no json": (
        lambda f: [write_jsonl_source(f / "in"), *written(f / "in/lines.jsonl", "{")],
        "line 1 is not JSON",
    ),
    "an unknown key": (lines(mask={}), "line 1: mask is unknown; did you mean masks?"),
    "no video of a line": (lines(video="z"), "line 1: there is no video 'z'"),
    "a list of the wrong length": (lines(masks=[None]), f"1 entries for the {FRAMES} frames"),
    "a frame that is not there": (lines(masks={"99": None}), "has no frame '99'"),
    "masks and boxes": (lines(boxes={"0": [1, 2, 3, 4]}), "an object has either masks or boxes"),
    "objects beside masks": (lines(objects=["1"]), "without masks or boxes beside it"),
    "an object that is never given": (
        lines({"video": "a", "expression": "it", "objects": ["9"]}),
        "no line gives the masks of object '9'",
    ),
    "an object given twice": (
        lines({"video": "a", "expression": "it", "object": "1", "masks": {"0": None}}),
        "object '1' has other masks",
    ),
    "an expression about nothing": (lines({"video": "a", "expression": "it"}), "line 2: no object is named"),
    "a box of width and height": (
        lambda f: [*lines({"video": "b", "expression": "it", "boxes": {"0": [30, 30, 5, 5]}})(f)],
        "needs x1 < x2 and y1 < y2",
    ),
    "a box of three numbers": (
        lines({"video": "b", "expression": "it", "boxes": {"0": [3, 3, 5]}}),
        "is not [x1, y1, x2, y2]",
    ),
    "a mask that is a number": (lines(masks={str(t): 3 for t in range(FRAMES)}), "not a run-length mask"),
    "an empty file": (
        lambda f: [write_jsonl_source(f / "in"), *written(f / "in/lines.jsonl", "\n")],
        "holds no line",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_input_is_named_in_one_line(tmp_path, capsys, name):
    make, says = CASES[name]
    words = make(tmp_path)
    output = [] if "--output" in words else ["--output", tmp_path / "out"]
    assert run(*words, *output) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert says in error[-1] and "Traceback" not in "".join(error)
    assert error[-1].startswith("veason data import: ")
    assert not (tmp_path / "out" / "mask_dict.json").exists()


def test_there_are_many_of_them():
    assert len(CASES) >= 60
