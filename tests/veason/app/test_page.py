"""The page of `veason app` in a browser: drop, read along, correct, track again, play, download.

The policy is a script that is written slowly; the tracker is the toy one. Skipped where Gradio is not installed.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

gr = pytest.importorskip("gradio", reason="Gradio, the extra `app`, is not installed")

from playwright.sync_api import Page as BrowserPage  # noqa: E402
from playwright.sync_api import expect  # noqa: E402

from tests.eval.browser import WIDTHS, needs_chromium, open_page  # noqa: E402
from tests.veason.videos import moving, write_video  # noqa: E402
from veason.answers import format_answer  # noqa: E402
from veason.app.command import serve  # noqa: E402
from veason.app.page import Limits  # noqa: E402
from veason.pipeline import Segmenter  # noqa: E402
from veason.pretrained import Pretrained  # noqa: E402
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION  # noqa: E402
from veason.video import open_video  # noqa: E402

REASONING = "Every shape but one leaves the picture <b>at some time</b>. The one that stays is the target."
MAX_FRAMES, SECOND = 30, 1000


class SlowPolicy:
    """Writes one answer, a word at a time."""

    def __init__(self, box: list[int]) -> None:
        self.words = format_answer(REASONING, 0, [box]).split(" ")

    def stream(self, questions):
        assert len(questions) == 1
        for number in range(1, len(self.words) + 1):
            time.sleep(0.05)
            yield [" ".join(self.words[:number])]


def shape_box(size: int) -> tuple[list[int], tuple[int, int]]:
    """Around the largest bright shape of the clip's first frame: in the policy's pixels; its middle in the video's."""
    import cv2

    frame = open_video(TOY_CLIP)[0]
    saturation = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1]
    _, mask = cv2.threshold(saturation, 0, 1, cv2.THRESH_OTSU)
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    best = max(range(1, count), key=lambda number: stats[number][cv2.CC_STAT_AREA])
    x, y, width, height = stats[best][:4]
    scale = np.array([size / frame.shape[1], size / frame.shape[0]] * 2)
    corners = (np.array([x, y, x + width, y + height]) * scale).round().astype(int).tolist()
    return corners, (round(centres[best][0]), round(centres[best][1]))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pretrained = Pretrained()
    pretrained.check()
    policy = SlowPolicy(shape_box(pretrained.size)[0])
    segmenter = Segmenter(policy, pretrained.load_tracker(), **pretrained.segmenter_options)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    root = tmp_path_factory.mktemp("app")
    page = serve(segmenter, Limits(MAX_FRAMES, max_upload_mb=1), root, "127.0.0.1", port, wait=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


def drop(page: BrowserPage, clip: Path, expression: str) -> None:
    page.locator("#video input[type=file]").set_input_files(clip)
    expect(page.locator("#video video")).to_be_visible(timeout=30 * SECOND)
    page.locator("#find textarea, #find input").first.fill(expression)


def check_layout(page: BrowserPage) -> None:
    """No horizontal scrolling."""
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]


def click_pixel(page: BrowserPage, x: float, y: float, size: tuple[int, int]) -> None:
    """A click at a pixel of the video, whose height and width are `size`, on the edited frame."""
    image = page.locator("#edited img").first
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    assert box is not None
    scale = min(box["width"] / size[1], box["height"] / size[0])  # the picture keeps its shape in its box
    left, top = (box["width"] - size[1] * scale) / 2, (box["height"] - size[0] * scale) / 2
    image.click(position={"x": left + (x + 0.5) * scale, "y": top + (y + 0.5) * scale})


@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
def test_a_video_is_found_corrected_and_downloaded(address: str, width: int, tmp_path: Path) -> None:
    with open_page(address, width) as page:
        expect(page.locator("#start")).to_be_visible(timeout=60 * SECOND)
        page.screenshot(path=tmp_path / "start.png", full_page=True)
        check_layout(page)
        drop(page, TOY_CLIP, TOY_EXPRESSION)
        page.locator("#start").click()
        text = page.locator("#thinking textarea")
        page.wait_for_function("document.querySelector('#thinking textarea').value.length > 5", timeout=60 * SECOND)
        assert len(text.input_value()) < len(REASONING)  # it is seen while it is written
        page.screenshot(path=tmp_path / "thinking.png", full_page=True)
        left, right = (page.locator(name).bounding_box() for name in ("#video", "#thinking"))
        assert left and right and (right["x"] > left["x"] + 100) == (width > 1000)  # side by side on a desk
        expect(page.locator("#outcome")).to_contain_text("1 object, keyframe 0.", timeout=90 * SECOND)
        assert REASONING in text.input_value()
        expect(page.locator("#edited img").first).to_be_visible(timeout=30 * SECOND)
        expect(page.locator("#overlay video")).to_be_visible(timeout=30 * SECOND)
        page.wait_for_function("document.querySelector('#overlay video').readyState >= 2", timeout=30 * SECOND)
        page.screenshot(path=tmp_path / "found.png", full_page=True)
        check_layout(page)
        correct(page, tmp_path)
        page.screenshot(path=tmp_path / "corrected.png", full_page=True)
        content = download(page, tmp_path)
    assert content["expression"] == TOY_EXPRESSION and len(content["boxes"]) == 3
    assert content["boxes"][1] == [10, 20, 31, 51]
    hosts = {url.split("/")[2] for url in page.requested if url.startswith("http")}  # type: ignore[attr-defined]
    assert hosts == {address.split("/")[2]}


def correct(page: BrowserPage, tmp_path: Path) -> None:
    """A second object by two clicks, and a third one by a point; all are tracked."""
    size = open_video(TOY_CLIP)[0].shape[:2]
    before = page.locator("#edited img").first.get_attribute("src")
    click_pixel(page, 10, 20, size)
    page.wait_for_function("src => document.querySelector('#edited img').src != src", arg=before)
    corner = page.locator("#edited img").first.get_attribute("src")
    click_pixel(page, 30, 50, size)
    page.wait_for_function("src => document.querySelector('#edited img').src != src", arg=corner)
    page.get_by_label("point on the object").check()
    boxes = page.locator("#edited img").first.get_attribute("src")
    click_pixel(page, 80, 100, size)
    page.wait_for_function("src => document.querySelector('#edited img').src != src", arg=boxes)
    page.screenshot(path=tmp_path / "edited.png", full_page=True)
    page.locator("#track").click()
    expect(page.locator("#outcome")).to_contain_text("3 objects, keyframe 0.", timeout=90 * SECOND)


def download(page: BrowserPage, tmp_path: Path) -> dict:
    """The result's JSON, as a user saves it."""
    names = page.locator("#files").inner_text()
    for name in ("index", "overlay", "masks", "result"):
        assert name in names
    with page.expect_download(timeout=30 * SECOND) as found:
        page.locator("#files a[download='result.json']").first.click()
    found.value.save_as(tmp_path / "result.json")
    return json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))


@needs_chromium
def test_a_second_user_waits_for_the_first(address: str) -> None:
    with open_page(address) as first:
        assert first.context.browser is not None
        second = first.context.browser.new_page()
        second.goto(address)
        for page in (first, second):
            drop(page, TOY_CLIP, TOY_EXPRESSION)
        for page in (first, second):
            page.locator("#start").click()
        first.wait_for_function("document.querySelector('#thinking textarea').value.length > 5", timeout=60 * SECOND)
        assert second.locator("#thinking textarea").input_value() == ""
        for page in (first, second):
            expect(page.locator("#outcome")).to_contain_text("1 object, keyframe 0.", timeout=90 * SECOND)


@needs_chromium
def test_what_is_refused_is_said(address: str, tmp_path: Path) -> None:
    with open_page(address) as page:
        expect(page.locator("#start")).to_be_visible(timeout=60 * SECOND)
        page.locator("#start").click()
        message = page.get_by_text("there is no video yet: drop one")
        expect(message.first).to_be_visible(timeout=30 * SECOND)
        drop(page, write_video(tmp_path / "long.mp4", moving(MAX_FRAMES + 1)), "the bar")
        page.locator("#start").click()
        refused = page.get_by_text(f"the video has more than {MAX_FRAMES} frames")
        expect(refused.first).to_be_visible(timeout=30 * SECOND)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2 << 20))
    with open_page(address) as page:
        page.locator("#video input[type=file]").set_input_files(large)
        expect(page.locator("#video")).to_contain_text("Error", timeout=30 * SECOND)
        assert page.locator("#video video").count() == 0
