"""A result: masks, overlay, a notebook's view; and the page, which holds all that it shows and escapes every text."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from tests.veason.scripted_parts import BoxTracker, ScriptedPolicy
from veason.answers import BAD_BOXES, BAD_JSON, BAD_KEYFRAME, NO_ANSWER, format_answer
from veason.errors import DataError
from veason.inference.prediction import FAILURE_MESSAGES, KEYFRAME_OUTSIDE, NO_TARGET
from veason.inference.segmenter import Segmenter
from veason.results import result_page

FRAMES = np.random.default_rng(0).integers(0, 255, (6, 60, 80, 3), dtype=np.uint8)
ATTACK = "<script>alert(1)</script>"


def segment(text, expression="the ducks"):
    return Segmenter(ScriptedPolicy(text), BoxTracker()).segment(FRAMES, expression)


@pytest.fixture
def two():
    return segment(format_answer("because", 2, [[0, 0, 280, 280], [280, 280, 560, 560]]))


def test_masks_of_objects_and_their_union(two):
    objects = two.object_masks(3)
    assert objects.shape == (2, 60, 80) and objects.dtype == bool and not (objects[0] & objects[1]).any()
    np.testing.assert_array_equal(two.mask(3), objects.any(0))
    np.testing.assert_array_equal(two.masks[3], objects.any(0))
    assert two.masks.shape == (6, 60, 80) and two.masks.dtype == bool


def test_a_result_is_described_in_a_line(two):
    found = "2 objects, keyframe 2; in view on 6 of 6 frames, at most 50 % of the picture"
    assert repr(two) == f"Segmentation('the ducks': {found}; 6 x 60 x 80)"
    assert repr(segment("?")) == f"Segmentation('the ducks': {FAILURE_MESSAGES[NO_ANSWER]}; 6 x 60 x 80)"


@pytest.mark.parametrize("failure", [NO_ANSWER, BAD_JSON, BAD_KEYFRAME, BAD_BOXES, KEYFRAME_OUTSIDE, NO_TARGET])
def test_every_failure_has_plain_words(failure):
    assert failure in FAILURE_MESSAGES and "_" not in FAILURE_MESSAGES[failure]


def test_the_page_says_why_nothing_was_found(tmp_path):
    shown = segment(format_answer("none of them", 1, [])).save(tmp_path).read_text()
    assert 'class="outcome failed"' in shown
    assert "The answer names no box: nothing in the video fits the expression." in shown


def test_a_notebook_shows_the_video_and_the_reasoning(two):
    html = two._repr_html_()
    assert "because" in html and "2 objects, keyframe 2" in html
    video = base64.b64decode(re.search(r'src="data:video/mp4;base64,([^"]+)"', html)[1])
    assert b"ftyp" in video[:16]
    assert ATTACK not in segment(format_answer(ATTACK, 2, []), ATTACK)._repr_html_()


def test_texts_are_escaped_and_nothing_is_loaded(tmp_path):
    text = f"<think>{ATTACK} \ud800</think><answer>{{</answer>"
    shown = segment(text, f"{ATTACK} \udcff").save(tmp_path).read_text(encoding="utf-8")
    assert ATTACK not in shown and "&lt;script&gt;" in shown
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', shown)
    assert len(sources) >= 10 and all(source.startswith("data:") for source in sources)
    assert "default-src &#39;none&#39;; img-src data:" in shown


def test_downloads_are_the_files(two, tmp_path):
    shown = two.save(tmp_path).read_text()
    found = dict(re.findall(r'<a download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', shown))
    assert sorted(found) == ["masks.zip", "masks_coco.json", "overlay.mp4", "result.json"]
    assert all(base64.b64decode(content) == (tmp_path / name).read_bytes() for name, content in found.items())


def test_what_is_large_is_linked(two, tmp_path, monkeypatch):
    monkeypatch.setattr(result_page, "MAX_EMBEDDED", 2000)
    shown = two.save(tmp_path).read_text()
    assert 'src="overlay.mp4"' in shown and 'href="overlay.mp4"' in shown and "data:video" not in shown


def test_a_folder_that_cannot_be_written_is_named(two, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out cannot be written: .*Not a directory"):
        two.save(tmp_path / "file" / "out")
