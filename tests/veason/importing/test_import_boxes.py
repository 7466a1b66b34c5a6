"""Boxes alone become masks on request, and are marked as such."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.veason.importing.drawn import FRAMES, box, read_set, read_tracks, run, write_coco_source, write_jsonl_source
from veason.tracking.base import BaseTracker

TRACKER = "tests.veason.importing.test_import_boxes:Drifting"


class Drifting(BaseTracker):
    """Moves a box by `step` pixels a frame."""

    def __init__(self, device="cpu", step=3):
        super().__init__(device)
        self.step = step

    def track(self, read_frame, total, keyframe, boxes):
        for t in range(total):
            mask = np.zeros(read_frame(t).shape[:2], bool)
            for x1, y1, x2, y2 in boxes.astype(int):
                shift = self.step * (t - keyframe)
                mask[y1:y2, max(x1 + shift, 0) : max(x2 + shift, 0)] = True
            yield t, mask


def write_boxes(folder, frames):
    path = write_jsonl_source(folder, frames, key="boxes")
    lines = [line for line in path.read_text().splitlines() if "blue" not in line and "both" not in line]
    path.write_text("\n".join(lines))
    return path


def test_boxes_are_refused_unless_tracking_is_asked_for(tmp_path, capsys):
    assert run(write_boxes(tmp_path / "in", range(FRAMES)), "--output", tmp_path / "out") == 2
    assert "object 1 has boxes and no masks: --boxes track" in capsys.readouterr().err


def test_tracked_boxes_become_masks_in_every_frame_and_say_so(tmp_path, capsys):
    path, output = write_boxes(tmp_path / "in", (0, 5)), tmp_path / "out"
    assert run(path, "--output", output, "--boxes", "track", "--tracker", TRACKER) == 0
    for t, mask in enumerate(read_tracks(output)["b/1"]):
        x1, y1, x2, y2 = box("b", 1, t)
        assert mask is not None and mask.sum() == mask[y1:y2, x1:x2].sum() == 12 * 16
    assert read_set(output)["b"]["objects"]["1"] == {
        "anno_id": "b/1",
        "category": None,
        "masks_from": f"boxes, {TRACKER}",
        "box_iou": 1.0,
    }
    assert "masks tracked from boxes: 2 objects" in capsys.readouterr().out


def test_masks_that_do_not_fit_the_other_boxes_are_named(tmp_path, capsys):
    path, output = write_boxes(tmp_path / "in", (0, 5)), tmp_path / "out"
    options = ["--boxes", "track", "--tracker", TRACKER, "--tracker_options", "step=-2"]
    assert run(path, "--output", output, *options) == 0
    assert "look at video a, object 1: its masks and the other boxes agree by IoU 0.0" in capsys.readouterr().out


def test_boxes_that_were_refused_are_tracked_in_the_same_folder(tmp_path, capsys):
    path, output = write_boxes(tmp_path / "in", (0, 5)), tmp_path / "out"
    assert run(path, "--output", output) == 2
    assert "--boxes track makes masks of them" in capsys.readouterr().err
    assert run(path, "--output", output, "--boxes", "track", "--tracker", TRACKER) == 0


def test_a_frame_whose_box_is_null_has_no_mask(tmp_path):
    path, output = write_boxes(tmp_path / "in", (0, 5)), tmp_path / "out"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if "boxes" in line:
            line["boxes"]["7"] = None
    path.write_text("\n".join(map(json.dumps, lines)))
    assert run(path, "--output", output, "--boxes", "track", "--tracker", TRACKER) == 0
    assert [mask is None for mask in read_tracks(output)["a/1"]] == [t == 7 for t in range(FRAMES)]


def test_coco_boxes(tmp_path):
    source, output = write_coco_source(tmp_path / "in"), tmp_path / "out"
    content = json.loads((source / "annotations.json").read_text())
    for annotation in content["annotations"]:
        image = content["images"][annotation["image_id"]]
        video, _, name = image["file_name"].partition("/")
        x1, y1, x2, y2 = box(video, annotation["category_id"], int(name.partition(".")[0]))
        annotation |= {"segmentation": [], "bbox": [x1, y1, x2 - x1, y2 - y1]}
    (source / "annotations.json").write_text(json.dumps(content))
    assert run(source, "--output", output, "--boxes", "track", "--tracker", TRACKER) == 0
    tracks = read_tracks(output)
    assert tracks["a/1"][11].sum() == 12 * 16
    assert tracks["a/2"][8] is None  # an image without the object says that it is absent


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--boxes", "track"], "needs --sam2"),
        (["--boxes", "track", "--sam2", "/nowhere.pt"], "/nowhere.pt"),
        (["--boxes", "track", "--tracker", "samm2"], "did you mean sam2"),
        (
            ["--boxes", "track", "--tracker", TRACKER, "--tracker_options", "speed=1"],
            "options.speed is unknown",
        ),
    ],
)
def test_a_tracker_that_cannot_be_had_is_named_first(tmp_path, capsys, options, says):
    assert run(write_boxes(tmp_path / "in", (0,)), "--output", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
