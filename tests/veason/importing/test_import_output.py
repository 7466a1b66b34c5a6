"""When the folder of another import may be used."""

from __future__ import annotations

import shutil

import pytest

from tests.veason.importing.drawn import FRAMES, VIDEOS, read_set, read_tracks, run, write_coco_source, write_png_source
from veason.importing import video_import


def test_other_options_are_refused(tmp_path, capsys):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    assert run(source, "--output", output) == 0
    capsys.readouterr()
    assert run(source, "--output", output, "--link") == 2
    says = "imported with other options (link False -> True): choose another folder, or delete this one"
    assert says in capsys.readouterr().err
    shutil.rmtree(source / "Annotations" / "b")
    broken = source / "Annotations" / "a" / "0.png"
    broken.write_bytes(b"x")
    assert run(source, "--output", output) == 2  # refused, and what was imported before stays protected
    assert "mask cannot be read" in capsys.readouterr().err
    assert run(source, "--output", output, "--link") == 2
    assert says in capsys.readouterr().err


def test_other_options_of_an_import_that_was_stopped_are_refused(tmp_path, monkeypatch, capsys):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    write = video_import.write_frames

    def stopping(clip, *rest):
        if clip.name == "b":
            raise KeyboardInterrupt
        return write(clip, *rest)

    monkeypatch.setattr(video_import, "write_frames", stopping)
    assert run(source, "--output", output) == 130
    assert run(source, "--output", output, "--link") == 2
    assert "imported with other options (link False -> True)" in capsys.readouterr().err


@pytest.mark.parametrize("video", VIDEOS)  # the first one, or one after others have been written
def test_a_refused_import_leaves_its_folder_to_the_corrected_command(tmp_path, video):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    (source / "Annotations" / video / "3.png").unlink()
    assert run(source, "--output", output) == 2
    assert run(source, "--output", output, "--unannotated", "drop") == 0
    assert len(read_set(output)[video]["frames"]) == FRAMES - 1
    assert run(source, "--output", output) == 2 and len(read_tracks(output)) == 4  # a finished import


def test_an_import_refused_for_its_captions_leaves_its_folder_too(tmp_path):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "c.csv").write_text("video,object,expression\na,7,it\n")
    assert run(source, "--output", output, "--captions", tmp_path / "c.csv") == 2
    assert run(source, "--output", output, "--link") == 0
    assert (output / "JPEGImages" / "a" / "00000.jpg").is_symlink()


def test_a_refused_import_may_be_repeated_at_another_rate(tmp_path):
    source, output = write_coco_source(tmp_path / "in", frames=range(0, FRAMES, 4), video_files=True), tmp_path / "out"
    assert run(source, "--output", output, "--fps", 4) == 2
    assert run(source, "--output", output, "--fps", 1) == 0
    assert read_set(output)["a"]["source_frames"] == [0, 4, 8]
    assert "refused" not in (output / "import" / "options.json").read_text()
