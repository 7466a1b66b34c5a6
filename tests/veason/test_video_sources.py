"""What `Segmenter.segment` takes as a video, and what it says about everything else before the policy is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from tests.veason.videos import moving, write_folder, write_video
from veason.answers import format_answer
from veason.errors import DataError
from veason.inference.segmenter import Segmenter
from veason.video.sources import as_frames

ARRAY = np.random.default_rng(0).integers(0, 255, (5, 20, 30, 3), dtype=np.uint8)


GOOD = {
    "array": lambda: ARRAY,
    "tensor": lambda: torch.from_numpy(ARRAY),
    "tensor, channels first": lambda: torch.from_numpy(ARRAY).permute(0, 3, 1, 2),
    "list of arrays": lambda: list(ARRAY),
    "list of tensors": lambda: list(torch.from_numpy(ARRAY)),
    "tuple of images": lambda: tuple(map(Image.fromarray, ARRAY)),
    "images with transparency": lambda: [Image.fromarray(frame).convert("RGBA") for frame in ARRAY],
    "iterator": lambda: (frame for frame in ARRAY),
    "iterator of images": lambda: map(Image.fromarray, ARRAY),
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_video_becomes_the_same_frames(kind):
    frames = as_frames(GOOD[kind]())
    assert len(frames) == 5
    np.testing.assert_array_equal(np.stack([frames[number] for number in range(5)]), ARRAY)


def test_files_are_read_when_they_are_indexed(tmp_path):
    folder, path = write_folder(tmp_path / "in", 3), write_video(tmp_path / "clip.mp4", moving(4))
    assert len(as_frames(folder)) == len(as_frames(str(folder))) == 3 and len(as_frames(path)) == 4
    assert as_frames(path, fps=2).fps == 2 and len(as_frames(path, fps=2)) == 1
    listed = as_frames([folder / "002.jpg", str(folder / "000.jpg")])
    np.testing.assert_array_equal(listed[0], as_frames(folder)[2])
    assert as_frames(listed) is listed


BAD = {
    "nothing": (None, "video is None: give a path"),
    "a number": (7, "video is of type int: give a path"),
    "bytes": (b"clip.mp4", "video is of type bytes"),
    "one frame": (ARRAY[0], r"video is one frame, an array \[20, 30, 3\] of uint8: give frame\[None\]"),
    "one image": (Image.fromarray(ARRAY[0]), r"video is one image, of mode RGB and 30 x 20: give \[image\]"),
    "floats": (ARRAY / 255.0, r"an array \[5, 20, 30, 3\] of float64: frames are uint8"),
    "float tensor": (torch.rand(5, 3, 20, 30), r"a tensor \[5, 3, 20, 30\] of float32: frames are uint8"),
    "grey": (ARRAY[..., 0], r"video is an array \[5, 20, 30\] of uint8"),
    "four channels": (np.zeros((5, 20, 30, 4), np.uint8), r"video is an array \[5, 20, 30, 4\] of uint8"),
    "channels first in an array": (np.zeros((5, 3, 20, 30), np.uint8), r"an array \[5, 3, 20, 30\]"),
    "a batch of videos": (ARRAY[None], r"video is an array \[1, 5, 20, 30, 3\]"),
    "no frames": (ARRAY[:0], "video has no frames"),
    "an empty list": ([], "video has no frames"),
    "an empty iterator": (iter(()), "video has no frames"),
    "no pixels": (np.zeros((5, 0, 30, 3), np.uint8), r"an array \[5, 0, 30, 3\]"),
    "frames of two sizes": ([ARRAY[0], ARRAY[1, :18]], "frame 0 is 30 x 20, frame 1 is 30 x 18 pixels"),
    "a list with None": ([ARRAY[0], None], "frame 1 of the video is None"),
    "a list of numbers": ([1, 2], "frame 0 of the video is of type int"),
    "a list with floats": ([ARRAY[0], ARRAY[1] / 255.0], r"frame 1 is an array \[20, 30, 3\] of float64"),
    "a dict": ({"frames": ARRAY}, "video is of type dict"),
    "a missing file": ("no such file.mp4", "video is missing"),
    "an empty path": ("", "path of the video is empty"),
    "a list with a missing file": (["no such file.jpg"], "frame is missing: no such file.jpg"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_video_is_described_before_the_policy_is_asked(kind):
    video, message = BAD[kind]
    policy = ScriptedPolicy()  # has no answer to give
    with pytest.raises(DataError, match=message) as found:
        Segmenter(policy, BoxTracker()).segment(video, "the duck")
    assert "\n" not in str(found.value) and not policy.questions


def test_fps_is_for_files():
    with pytest.raises(DataError, match="fps is for a path"):
        as_frames(ARRAY, fps=2)


@pytest.mark.parametrize(
    ("expressions", "message"),
    [([], "no expression"), (["a", " . "], "' . ' is empty"), (["a", 3], "not of type int"), ("a duck", "are a list")],
)
def test_expressions_are_checked_first(expressions, message):
    with pytest.raises(DataError, match=message):
        Segmenter(ScriptedPolicy(), BoxTracker()).segment_all(ARRAY, expressions)


def test_a_result_of_images_is_that_of_arrays():
    answer = format_answer("here", 3, [[0, 0, 280, 280]])
    results = [Segmenter(ScriptedPolicy(answer), BoxTracker()).segment(make(), "x") for make in GOOD.values()]
    assert all((result.masks == results[0].masks).all() and result.masks.any() for result in results)
