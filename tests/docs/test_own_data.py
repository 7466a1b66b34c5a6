"""docs/own_data.md: its schema and its code are right, and all its commands lead from clips to a report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import jsonschema
import numpy as np
import pytest

from tests.docs.command_blocks import ROOT, make_checkout, read_blocks, write_program
from tests.real_clips import write_video
from tests.veason.importing.drawn import captions, read_set, read_tracks, run, write_png_source

PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
BLOCKS = [block for block in read_blocks() if block.page == "docs/own_data.md"]


def code(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_schema_holds_for_what_the_import_writes(tmp_path):
    schema = next(json.loads(text) for text in code("json") if '"required"' in text)
    example = next(json.loads(text) for text in code("json") if text.startswith('{"videos"'))
    source = write_png_source(tmp_path / "in")
    assert run(source, "--output", tmp_path / "data", "--captions", captions(source), "--val_ratio", 0.5) == 0
    written = [
        json.loads((tmp_path / "data" / f"meta_expressions_{split}_.json").read_text()) for split in ("train", "valid")
    ]
    for content in (example, *written):
        assert content["videos"]
        jsonschema.validate(content, schema)
    del example["videos"]["clip_0000"]["frames"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(example, schema)


@pytest.mark.parametrize(("left_out", "name"), [("", "3"), ("track_id", "white_shape"), ("category_id", "3")])
def test_the_coco_example_is_imported_and_names_its_object_as_the_page_says(tmp_path, left_out, name):
    content = next(json.loads(text) for text in code("json") if '"images"' in text)
    content["annotations"][0].pop(left_out, None)
    (tmp_path / "in" / "videos").mkdir(parents=True)
    (tmp_path / "in" / "annotations.json").write_text(json.dumps(content))
    frames = [np.full((120, 160, 3), t, np.uint8) for t in range(60)]
    write_video(tmp_path / "in" / "videos" / "clip_0000.mp4", frames, rate=30)
    options = ["--fps", 1, "--unannotated", "drop"]
    assert run(tmp_path / "in", "--output", tmp_path / "data", *options) == 0
    ((key, (mask,)),) = read_tracks(tmp_path / "data").items()
    assert key == f"clip_0000/{name}" and mask[20:80, 10:60].all() and mask.sum() == 60 * 50
    assert read_set(tmp_path / "data")["clip_0000"]["source_frames"] == [30]


def test_the_code_makes_an_rle_that_is_read():
    from veason import masks

    (text,) = code("python")
    names: dict = {}
    exec(text, names)
    assert (masks.decode(masks.as_rle(names["entry"])) == names["pixels"]).all()


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_from_clips_to_a_report(tmp_path):
    """All commands but those that need something, one after the other."""
    make_checkout(tmp_path)
    programs = tmp_path / ".programs"
    programs.mkdir()
    write_program(programs / "python", f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    write_program(programs / "veason", f'#!/bin/bash\nexec "{sys.executable}" -m veason.cli "$@"\n')
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    for block in BLOCKS:
        if block.mark is None or "minutes" in block.mark:
            subprocess.run(["bash", "-eo", "pipefail", "-c", block.text], cwd=tmp_path, env=environment, check=True)
    runs = tmp_path / "outputs" / "runs"
    assert (runs / "sft" / "huggingface" / "config.json").is_file()
    assert (runs / "grpo" / "huggingface" / "config.json").is_file()
    assert json.loads((runs / "evaluation" / "metrics.json").read_text())["table"]["Overall J&F"]["value"] >= 0
    assert "clip_00" in (runs / "grpo" / "report.html").read_text(encoding="utf-8")
