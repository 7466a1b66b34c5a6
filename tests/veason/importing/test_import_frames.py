"""Which frames are kept, and how they are written."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.real_clips import write_video
from tests.veason.importing.drawn import (
    FRAMES,
    VIDEOS,
    picture,
    read_set,
    read_tracks,
    run,
    square,
    write_coco_source,
    write_pictures,
    write_png_source,
)
from veason.importing import video_import
from veason.importing.kept_frames import choose_frames
from veason.importing.source_clips import SourceClip, find_clips


class Timed(SourceClip):
    """Frames at times of a video file, without the file."""

    times = None
    total = 0


def timed(times):
    clip = Timed("v", None)
    object.__setattr__(clip, "times", times)
    object.__setattr__(clip, "total", len(times))
    return clip


@pytest.mark.parametrize(
    ("rate", "count", "fps", "annotated", "kept", "left_out"),
    [
        (10, 30, 1, None, [0, 10, 20], []),
        (10, 31, 1, None, [0, 10, 20, 30], []),
        (10, 30, 2, None, [0, 5, 10, 15, 20, 25], []),
        (10, 30, 10, None, list(range(30)), []),
        (10, 30, 25, None, list(range(30)), []),  # none is shown twice
        (10, 30, 1, {0, 8, 13, 20}, [0, 8, 20], []),  # 8 is nearer to one second than 13
        (10, 30, 1, {0, 20}, [0, 20], [10]),
        (10, 30, 1, range(30), [0, 10, 20], []),
        (29.97, 90, 1, None, [0, 30, 60], []),
    ],
)
def test_a_file_is_sampled_by_time(rate, count, fps, annotated, kept, left_out):
    found = choose_frames(timed([t / rate for t in range(count)]), fps, annotated)
    assert found == (kept, left_out)


def test_uneven_times_are_sampled_by_time():
    clip = timed([0.0, 0.9, 1.4, 1.6, 3.05])
    assert choose_frames(clip, 1, None).kept == [0, 1, 3, 4]


def test_video_files_with_coco(tmp_path):
    source = write_coco_source(tmp_path / "in", video_files=True)
    assert run(source, "--output", tmp_path / "out", "--fps", 1) == 0
    assert read_set(tmp_path / "out")["a"]["source_frames"] == [0, 4, 8]  # four frames a second
    track = read_tracks(tmp_path / "out")["b/1"]
    assert [np.array_equal(found, square("b", 1, t)) for found, t in zip(track, (0, 4, 8))] == [True] * 3
    for number, t in enumerate((0, 4, 8)):
        stored = np.asarray(Image.open(tmp_path / "out" / "JPEGImages" / "a" / f"{number:05d}.jpg")).astype(int)
        assert np.abs(stored - picture("a", t)).mean() < 8


def test_frames_may_be_numbered_from_one(tmp_path):
    source = write_coco_source(tmp_path / "in", video_files=True)
    text = (source / "annotations.json").read_text()
    for t in reversed(range(FRAMES)):
        text = text.replace(f"/{t}.jpg", f"/frame_{t + 1:06d}.jpg")
    (source / "annotations.json").write_text(text)
    assert run(source, "--output", tmp_path / "out", "--fps", 4, "--first_frame", 1) == 0
    assert np.array_equal(read_tracks(tmp_path / "out")["a/1"][11], square("a", 1, 11))


def test_a_frame_without_annotation_is_refused_or_left_out_and_never_an_absent_target(tmp_path, capsys):
    source = write_png_source(tmp_path / "in", frames=range(0, FRAMES, 2))
    assert run(source, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "6 of 12 frames have no annotation, first 1.jpg" in error and "--unannotated drop" in error
    assert run(source, "--output", tmp_path / "other", "--unannotated", "drop") == 0
    assert "left out: 12 frames without an annotation, in 2 videos" in capsys.readouterr().out
    meta = read_set(tmp_path / "other")["a"]
    assert meta["source_frames"] == [0, 2, 4, 6, 8, 10] and len(meta["frames"]) == 6
    track = read_tracks(tmp_path / "other")["a/2"]
    assert [found is None for found in track] == [False, False, False, True, True, True]  # absent from 6 on


def write_kept_source(folder):
    """One video of twelve seconds, twelve frames a second, and the masks of its whole seconds, named 0 to 11."""
    source = write_png_source(folder)
    shutil.rmtree(source / "JPEGImages")
    shutil.rmtree(source / "Annotations" / "b")
    (source / "videos").mkdir()
    write_video(source / "videos" / "a.mp4", [picture("a", t // 12) for t in range(12 * FRAMES)], rate=12)
    return source


def test_masks_that_are_numbered_by_kept_frame_are_told_of_and_taken(tmp_path, capsys):
    source = write_kept_source(tmp_path / "in")
    assert run(source, "--output", tmp_path / "out", "--fps", 1) == 2
    error = capsys.readouterr().err
    assert "the masks are 0 to 11, consecutive: are they numbered by kept frame? Then --numbering kept" in error
    assert "at --fps 1 these are about 0, 12, 24, 36, ..." in error
    assert run(source, "--output", tmp_path / "drop", "--fps", 1, "--unannotated", "drop") == 0
    assert "look at video a: of 12 frames 2 are kept, the others have no annotation" in capsys.readouterr().out
    assert run(source, "--output", tmp_path / "kept", "--fps", 1, "--numbering", "kept") == 0
    assert read_set(tmp_path / "kept")["a"]["source_frames"] == list(range(0, 144, 12))
    track = read_tracks(tmp_path / "kept")["a/1"]
    assert all(np.array_equal(found, square("a", 1, t)) for t, found in enumerate(track))
    (source / "Annotations" / "a" / "12.png").write_bytes((source / "Annotations" / "a" / "11.png").read_bytes())
    assert run(source, "--output", tmp_path / "more", "--fps", 1, "--numbering", "kept") == 2
    assert "has no such frame (12 kept of 144 frames, the first is number 0)" in capsys.readouterr().err


def test_the_frames_of_a_video_are_annotated_for_all_its_objects(tmp_path):
    source = write_coco_source(tmp_path / "in", frames=range(8))
    assert run(source, "--output", tmp_path / "out", "--unannotated", "drop") == 0
    assert read_set(tmp_path / "out")["b"]["source_frames"] == list(range(8))


def test_jpegs_are_copied_to_the_byte_or_linked_and_others_encoded(tmp_path):
    source = write_png_source(tmp_path / "in")
    first = source / "JPEGImages" / "a" / "0.jpg"
    Image.open(source / "JPEGImages" / "a" / "1.jpg").save(source / "JPEGImages" / "a" / "1.png")
    os.unlink(source / "JPEGImages" / "a" / "1.jpg")
    for output, link in (("copied", []), ("linked", ["--link"])):
        assert run(source, "--output", tmp_path / output, *link) == 0
        frames = tmp_path / output / "JPEGImages" / "a"
        assert (frames / "00000.jpg").read_bytes() == first.read_bytes()
        assert (frames / "00000.jpg").is_symlink() == bool(link)
        assert Image.open(frames / "00001.jpg").format == "JPEG" and not (frames / "00001.jpg").is_symlink()


def test_a_picture_that_exif_turns_is_stored_upright(tmp_path):
    source = write_png_source(tmp_path / "in")
    for path in (source / "JPEGImages" / "a").iterdir():
        turned = Image.open(path).transpose(Image.Transpose.ROTATE_90)
        exif = turned.getexif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        turned.save(path, quality=95, exif=exif)
    assert run(source, "--output", tmp_path / "out") == 0
    stored = np.asarray(Image.open(tmp_path / "out" / "JPEGImages" / "a" / "00000.jpg")).astype(int)
    assert np.abs(stored - picture("a", 0)).mean() < 8


def test_hidden_files_are_no_videos(tmp_path):
    write_pictures(tmp_path / "in")
    (tmp_path / "in" / "a" / "._0.jpg").write_bytes(b"x")
    (tmp_path / "in" / "._a.mp4").write_bytes(b"x")
    (tmp_path / "in" / ".git").mkdir()
    shutil.copy(tmp_path / "in" / "a" / "0.jpg", tmp_path / "in" / ".git" / "0.jpg")
    assert list(find_clips(tmp_path / "in")) == list(VIDEOS)
    assert [path.stem for path in find_clips(tmp_path / "in")["a"].pictures] == [str(t) for t in range(FRAMES)]


def test_videos_in_folders_and_one_folder_alone(tmp_path):
    write_pictures(tmp_path / "in" / "day 1")
    assert list(find_clips(tmp_path / "in")) == ["day 1/a", "day 1/b"]
    assert list(find_clips(tmp_path / "in" / "day 1" / "a")) == ["a"]


def test_an_import_that_was_stopped_goes_on_with_the_first_open_video(tmp_path, monkeypatch, capsys):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    write, written = video_import.write_frames, []

    def stopping(clip, *rest):
        written.append(clip.name)
        if written == ["a", "b"]:
            raise KeyboardInterrupt
        return write(clip, *rest)

    monkeypatch.setattr(video_import, "write_frames", stopping)
    assert run(source, "--output", output) == 130
    assert not (output / "mask_dict.json").exists() and not list(output.rglob(".*.part"))
    assert run(source, "--output", output) == 0
    assert written == ["a", "b", "b"] and "1 of 2 videos were imported before" in capsys.readouterr().out
    assert run(source, "--output", output) == 0
    assert written == ["a", "b", "b"] and sorted(read_set(output)) == ["a", "b"]


def test_what_is_new_or_has_changed_is_imported(tmp_path, capsys):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    assert run(source, "--output", output) == 0
    for name in ("JPEGImages", "Annotations"):
        shutil.copytree(source / name / "a", source / name / "c")
    changed = source / "Annotations" / "b" / "3.png"
    Image.fromarray(np.zeros_like(np.asarray(Image.open(changed)))).save(changed)
    capsys.readouterr()
    assert run(source, "--output", output) == 0
    assert "1 of 3 videos were imported before" in capsys.readouterr().out
    tracks = read_tracks(output)
    assert list(tracks) == ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"] and tracks["b/1"][3] is None


def test_captions_may_change_without_a_new_import(tmp_path, monkeypatch):
    source, output = write_png_source(tmp_path / "in"), tmp_path / "out"
    assert run(source, "--output", output) == 0
    monkeypatch.setattr(video_import, "write_frames", None)
    text = tmp_path / "captions.csv"
    text.write_text("video;object;expression\na;1;the red square\nb;1;it moves\n")  # as some spreadsheets write CSV
    assert run(source, "--output", output, "--captions", text) == 0
    assert [e["exp"] for e in read_set(output)["a"]["expressions"].values()] == ["the red square"]


def test_a_video_of_which_one_frame_is_kept_is_named(tmp_path, capsys):
    source = write_coco_source(tmp_path / "in", video_files=True)  # three seconds
    assert run(source, "--output", tmp_path / "out", "--fps", 0.1) == 0
    assert "look at video a: one frame is kept; a higher --fps keeps more" in capsys.readouterr().out
