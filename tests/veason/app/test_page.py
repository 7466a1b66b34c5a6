"""The page of `veason app` in a browser: drop, read along, correct, track again, play, download.

The policy is a script that is written slowly; the tracker is the toy one. Skipped where Gradio is not installed, unless
REQUIRE_APP is set (.ci/run).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

if not os.environ.get("REQUIRE_APP"):
    pytest.importorskip("gradio", reason="Gradio, the extra `app`, is not installed")

from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as BrowserPage

from tests.eval.browser import PATIENCE, WIDTHS, needs_chromium, open_page
from tests.processes import free_port
from tests.veason.videos import moving, write_video
from veason.answers import format_answer
from veason.app.command import serve
from veason.app.page import UsageLimits
from veason.inference.model_options import ModelOptions
from veason.inference.segmenter import Segmenter
from veason.toy_assets import TOY_CLIP, TOY_EXPRESSION
from veason.video.sources import open_video

REASONING = "Every shape but one leaves the picture <b>at some time</b>. The one that stays is the target."
MAX_FRAMES, MIDDLE = 30, 8


class SlowPolicy:
    """Writes one answer, a word at a time, and in its middle waits for `go_on`."""

    def __init__(self, box: list[int]) -> None:
        self.words = format_answer(REASONING, 0, [box]).split(" ")
        self.go_on = threading.Event()

    def stream(self, questions):
        assert len(questions) == 1
        for number in range(1, len(self.words) + 1):
            if number == MIDDLE:
                assert self.go_on.wait(300)
            time.sleep(0.01)
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
def model_options() -> ModelOptions:
    options = ModelOptions()
    options.check()
    return options


@pytest.fixture(scope="module")
def slow_policy(model_options: ModelOptions) -> SlowPolicy:
    return SlowPolicy(shape_box(model_options.size)[0])


@pytest.fixture
def policy(slow_policy: SlowPolicy) -> SlowPolicy:
    slow_policy.go_on.clear()
    return slow_policy


@pytest.fixture(scope="module")
def address(
    model_options: ModelOptions, slow_policy: SlowPolicy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    segmenter = Segmenter(slow_policy, model_options.load_tracker(), **model_options.segmenter_options)  # type: ignore[arg-type]
    port = free_port()
    root = tmp_path_factory.mktemp("app")
    page = serve(segmenter, UsageLimits(MAX_FRAMES, max_upload_mb=1), root, "127.0.0.1", port, wait=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


def drop(page: BrowserPage, clip: Path, expression: str) -> None:
    page.locator("#video input[type=file]").set_input_files(clip)
    expect(page.locator("#video video")).to_be_visible()
    page.locator("#find textarea, #find input").first.fill(expression)


def check_layout(page: BrowserPage) -> None:
    """No horizontal scrolling."""
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]


class EditedFrame:
    """The edited frame and the mouse over it, in pixels of the toy clip."""

    def __init__(self, page: BrowserPage) -> None:
        self.page, self.size = page, open_video(TOY_CLIP)[0].shape[:2]

    @property
    def picture(self) -> str | None:
        return self.page.locator("#edited img").get_attribute("src")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel's upper left corner is in the window."""
        image = self.page.locator("#edited img")
        box = image.bounding_box()
        assert box is not None
        assert abs(box["width"] / box["height"] - self.size[1] / self.size[0]) < 0.02  # the picture keeps its shape
        return box["x"] + x * box["width"] / self.size[1], box["y"] + y * box["height"] / self.size[0]

    def move(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at `start` and move to `end`."""
        self.page.locator("#edited img").scroll_into_view_if_needed()
        self.page.mouse.move(*self.place(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(*end), steps=5)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.move(start, end)
        self.page.mouse.up()

    def drag_finger(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.locator("#edited img").scroll_into_view_if_needed()
        session = self.page.context.new_cdp_session(self.page)
        for kind, place in (("touchStart", start), ("touchMove", end)):
            x, y = self.place(*place)
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def click(self, x: float, y: float) -> None:
        self.page.locator("#edited img").scroll_into_view_if_needed()
        self.page.mouse.click(*self.place(x + 0.5, y + 0.5))

    def boxes(self, count: int) -> None:
        """Wait for the boxes, each of which has five grips."""
        expect(self.page.locator("#edited .grip")).to_have_count(5 * count)
        expect(self.page.locator("#edited .band")).to_be_hidden()

    def changed(self, before: str | None) -> None:
        self.page.wait_for_function("src => document.querySelector('#edited img').src != src", arg=before)
        expect(self.page.locator("#edited .band")).to_be_hidden()


@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
def test_a_video_is_found_corrected_and_downloaded(
    address: str, chromium: Browser, policy: SlowPolicy, width: int, tmp_path: Path
) -> None:
    with open_page(chromium, address, width) as page:
        expect(page.locator("#start")).to_be_visible()
        page.screenshot(path=tmp_path / "start.png", full_page=True)
        check_layout(page)
        drop(page, TOY_CLIP, TOY_EXPRESSION)
        page.locator("#start").click()
        text = page.locator("#thinking textarea")
        page.wait_for_function("document.querySelector('#thinking textarea').value.length > 5")
        assert len(text.input_value()) < len(REASONING)  # it is seen while it is written
        page.screenshot(path=tmp_path / "thinking.png", full_page=True)
        left, right = (page.locator(name).bounding_box() for name in ("#video", "#thinking"))
        assert left and right and (right["x"] > left["x"] + 100) == (width > 1000)  # side by side on a desk
        policy.go_on.set()
        expect(page.locator("#outcome")).to_contain_text("1 object, keyframe 0; in view on")
        assert REASONING in text.input_value()
        expect(page.locator("#edited img")).to_be_visible()
        expect(page.locator("#overlay video")).to_be_visible()
        page.wait_for_function("document.querySelector('#overlay video').readyState >= 2")
        page.screenshot(path=tmp_path / "found.png", full_page=True)
        check_layout(page)
        draw_and_remove(page, tmp_path)
        correct(page, tmp_path)
        page.screenshot(path=tmp_path / "corrected.png", full_page=True)
        content = download(page, tmp_path)
    assert content["expression"] == TOY_EXPRESSION and len(content["boxes"]) == 3
    assert content["boxes"][1] == [15, 10, 46, 51]
    hosts = {url.split("/")[2] for url in page.requested if url.startswith("http")}  # type: ignore[attr-defined]
    assert hosts == {address.split("/")[2]}


def draw_and_remove(page: BrowserPage, tmp_path: Path) -> None:
    """Boxes that are drawn at once all arrive; Escape leaves nothing; the answer's box comes back; the frame fills
    the screen.
    """
    frame = EditedFrame(page)
    frame.boxes(1)
    for number, drag in enumerate((frame.drag, frame.drag_finger, frame.drag)):
        drag((5 + 40 * number, 100), (35 + 40 * number, 115))
    frame.boxes(4)
    frame.move((5, 5), (30, 15))
    expect(page.locator("#edited .band")).to_be_visible()
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator("#edited .band")).to_be_hidden()
    page.locator("#remove").click()
    frame.boxes(0)
    page.locator("#reset").click()
    frame.boxes(1)
    page.locator("#edited .whole").click()
    page.wait_for_function("document.fullscreenElement && document.fullscreenElement.matches('.frame')")
    whole = page.locator("#edited img").bounding_box()
    assert whole and whole["height"] <= 900 and whole["width"] <= page.viewport_size["width"]  # type: ignore[index]
    page.screenshot(path=tmp_path / "whole.png")
    page.locator("#edited .whole").click()
    page.wait_for_function("document.fullscreenElement === null")


def correct(page: BrowserPage, tmp_path: Path) -> None:
    """A second object by a box that is drawn, enlarged and moved, and a third one by a point; all are tracked."""
    frame = EditedFrame(page)
    before = frame.picture
    frame.move((10, 20), (31, 51))
    page.screenshot(path=tmp_path / "dragging.png", full_page=True)
    assert frame.picture == before
    page.mouse.up()
    frame.boxes(2)
    for start, end in (((31, 51), (41, 61)), ((25.5, 40.5), (30.5, 30.5))):  # its corner, and its middle
        before = frame.picture
        frame.drag(start, end)
        frame.changed(before)
        frame.boxes(2)
    frame.click(80, 100)
    expect(page.locator("#target input")).to_have_value("object 3")
    page.screenshot(path=tmp_path / "edited.png", full_page=True)
    page.locator("#track").click()
    expect(page.locator("#outcome")).to_contain_text("3 objects, keyframe 0; in view on")


def download(page: BrowserPage, tmp_path: Path) -> dict:
    """The result's JSON, as a user saves it."""
    names = page.locator("#files").inner_text()
    for name in ("index", "overlay", "masks", "result"):
        assert name in names
    with page.expect_download() as found:
        page.locator("#files a[download='result.json']").first.click()
    found.value.save_as(tmp_path / "result.json")
    return json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))


@needs_chromium
def test_a_second_user_waits_for_the_first(address: str, chromium: Browser, policy: SlowPolicy) -> None:
    with open_page(chromium, address) as first:
        second = chromium.new_page()
        second.set_default_timeout(PATIENCE)
        second.goto(address)
        for page in (first, second):
            drop(page, TOY_CLIP, TOY_EXPRESSION)
        first.locator("#start").click()
        first.wait_for_function("document.querySelector('#thinking textarea').value.length > 5")
        second.locator("#start").click()
        expect(second.get_by_text("queue: 1/1").first).to_be_visible()
        assert second.locator("#thinking textarea").input_value() == ""
        policy.go_on.set()
        for page in (first, second):
            expect(page.locator("#outcome")).to_contain_text("1 object, keyframe 0; in view on")


@needs_chromium
def test_what_is_refused_is_said(address: str, chromium: Browser, tmp_path: Path) -> None:
    with open_page(chromium, address) as page:
        expect(page.locator("#start")).to_be_visible()
        page.locator("#start").click()
        message = page.get_by_text("there is no video yet: drop one")
        expect(message.first).to_be_visible()
        drop(page, write_video(tmp_path / "long.mp4", moving(MAX_FRAMES + 1)), "the bar")
        page.locator("#start").click()
        refused = page.get_by_text(f"the video has more than {MAX_FRAMES} frames")
        expect(refused.first).to_be_visible()
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2 << 20))
    with open_page(chromium, address) as page:
        page.locator("#video input[type=file]").set_input_files(large)
        expect(page.locator("#video")).to_contain_text("Error")
        assert page.locator("#video video").count() == 0
