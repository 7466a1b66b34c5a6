"""The data card that an import writes: what it says, what of it belongs to people, and how it goes to the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from tests.veason.importing.drawn import (
    captions,
    read_set,
    run,
    write_coco_source,
    write_jsonl_source,
    write_png_source,
)
from tests.veason.importing.test_import_boxes import TRACKER, write_boxes
from veason.cli import main
from veason.hub.data_card import BEGIN, END, MISSING_LICENSE


def rows(card: str) -> dict[str, str]:
    """The table of how a set was made."""
    lines = card.partition("## How it was made")[2].partition("##")[0].splitlines()
    cells = (line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| ") and "---" not in line)
    return {cell[0]: cell[1] for cell in cells if len(cell) == 2}


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """Two videos, one a split."""
    source = write_png_source(tmp_path / "in")
    assert run(source, "--output", tmp_path / "data", "--captions", captions(source), "--val_ratio", 0.5) == 0
    return tmp_path / "data"


def test_the_card_says_what_was_imported_and_leaves_the_licence_open(imported):
    text = (imported / "README.md").read_text(encoding="utf-8")
    card = DatasetCard(text)
    assert card.data.to_dict() == {
        "license": "unknown",
        "task_categories": ["image-segmentation"],
        "tags": ["video-segmentation", "reasoning-segmentation"],
        "pretty_name": "data",
    }
    assert "| train | 1 | 12 | 3 | 3 referring |\n| valid | 1 | 12 | 3 | 3 referring |" in text
    assert rows(text) == {
        "imported from": "videos with PNG masks, as DAVIS and YouTube-VOS have them",
        "frames": "as the source has them",
        "frames without an annotation": "none",
        "masks": "4 objects annotated in the source",
        "expressions": "6 of the source",
    }
    assert MISSING_LICENSE in text and "tracker" not in text and str(imported) not in text


def test_frame_rate_and_left_out_frames_are_said(tmp_path):
    coco = write_coco_source(tmp_path / "coco", video_files=True)
    assert run(coco, "--output", tmp_path / "one", "--fps", 2.5, "--category_expressions") == 0
    found = rows((tmp_path / "one" / "README.md").read_text(encoding="utf-8"))
    assert found["imported from"] == "videos with a COCO file"
    assert found["frames"] == "2.5 a second of video files; folders of pictures as they are"
    lines = write_jsonl_source(tmp_path / "lines", range(0, 12, 2))
    assert run(lines, "--output", tmp_path / "two", "--unannotated", "drop") == 0
    text = (tmp_path / "two" / "README.md").read_text(encoding="utf-8")
    assert rows(text)["frames without an annotation"] == "left out" and rows(text)["imported from"].startswith("JSON")
    assert "1 absent target, 1 reasoning, 2 referring" in text


def test_masks_of_a_tracker_are_marked_the_doubtful_ones_first(tmp_path):
    path, output = write_boxes(tmp_path / "in", (0, 5)), tmp_path / "out"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if line["video"] == "b")["boxes"].pop("5")  # nothing to compare with
    path.write_text("\n".join(map(json.dumps, lines)))
    options = ["--boxes", "track", "--tracker", TRACKER, "--tracker_options", "step=-2"]
    assert run(path, "--output", output, *options) == 0
    text = (output / "README.md").read_text(encoding="utf-8")
    assert rows(text)["masks"] == f"2 objects tracked by {TRACKER} from boxes, **not annotated**"
    table = text.partition("### Masks made by a tracker")[2]
    assert f"| a | 1 | {TRACKER} | 0.0 |\n| b | 1 | {TRACKER} | - |\n" in table


def test_what_people_wrote_stays_and_the_rest_is_made_anew(imported, tmp_path, capsys):
    path = imported / "README.md"
    first = path.read_text(encoding="utf-8")
    edited = first.replace("license: unknown", "license: mit").replace(MISSING_LICENSE, "Licence: MIT. Filmed by us.")
    path.write_text(edited.replace("| train |", "| an old row |"), encoding="utf-8")
    again = [tmp_path / "in", "--output", imported, "--captions", tmp_path / "in" / "captions.json"]
    assert run(*again, "--val_ratio", 0.5) == 0
    assert path.read_text(encoding="utf-8") == edited
    path.write_text("# My clips\n", encoding="utf-8")
    capsys.readouterr()
    assert run(*again, "--val_ratio", 0.5) == 0
    assert path.read_text(encoding="utf-8") == "# My clips\n"
    assert "README.md is your own, and stays as it is" in capsys.readouterr().out


def test_the_card_goes_to_the_hub_with_its_licence(imported, capsys):
    path = imported / "README.md"
    path.write_text(path.read_text(encoding="utf-8").replace("Whoever publishes", "Filmed by us. Whoever publishes"))
    push = ["push", str(imported), "somebody/clips", "--dry_run", "--license"]
    assert main([*push, "CC-BY-4.0"]) == 0
    shown = capsys.readouterr().out.partition("README.md:\n\n")[2]
    assert DatasetCard(shown).data.license == "cc-by-4.0"
    assert "Licence: CC-BY-4.0.\n\nFilmed by us." in shown and MISSING_LICENSE not in shown
    assert "hf download somebody/clips --repo-type dataset" in shown and "4 objects annotated in the source" in shown
    assert main([*push, "our own"]) == 0
    metadata = DatasetCard(capsys.readouterr().out.partition("README.md:\n\n")[2]).data
    assert (metadata.license, metadata.license_name) == ("other", "our own")
    path.write_text("---\nlicense: [\n---\n# My clips\n", encoding="utf-8")
    assert main([*push, "mit"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "README.md: its metadata cannot be read" in line


def test_the_marks_are_around_what_is_made(imported):
    text = (imported / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    made, _, after = rest.partition(END)
    assert (
        "| train |" in made and "## Source and licence" in after and before.rstrip().endswith("in the form of ReVOS.")
    )
    assert read_set(imported).keys() == {"a", "b"}
