"""Pages in headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1280, 420)  # of a desk and of a telephone, in pixels
PATIENCE = 180_000  # milliseconds for whatever a page has to do: more than a busy machine takes

# where REQUIRE_CHROMIUM is set (.ci/run) a missing browser is a failure, not a skip
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("REQUIRE_CHROMIUM"), reason="no Chromium here: apt-get install chromium"
)


@contextmanager
def launch_chromium() -> Iterator[Browser]:
    """A browser; see the fixture `chromium`."""
    assert CHROMIUM is not None, "Chromium is required (REQUIRE_CHROMIUM) and not installed"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=PATIENCE)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, target: Path | str, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """A file or an address in a browser, without what other pages have left in it.

    `page.messages` and `page.requested` collect errors of the page and the URLs that it loads.
    """
    page: Any = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    page.messages, page.requested = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(target if isinstance(target, str) else target.resolve().as_uri())
    try:
        yield page
    finally:
        page.close()


def check_page(page: Page) -> None:
    """What holds for every page: no error, nothing loaded, no horizontal scrolling, legible text, whole pictures."""
    seen: Any = page
    assert seen.messages == []
    assert [url for url in seen.requested if not url.startswith(("data:image/", "file://"))] == []
    assert sum(url.startswith("file") for url in seen.requested) == 1
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    smallest = page.evaluate(
        """Math.min(...[...document.querySelectorAll('body *')].filter(part => part.checkVisibility() &&
        [...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
        .map(part => parseFloat(getComputedStyle(part).fontSize)))"""
    )
    assert smallest >= 12
    broken = page.evaluate(
        """Promise.all([...document.images].filter(image => image.src)
        .map(image => image.decode().then(() => image.naturalWidth > 0, () => false)))
        .then(all => all.filter(ok => !ok).length)"""
    )
    assert broken == 0
    clipped = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, p, dt, dd, li')].filter(part => part.checkVisibility() &&
        part.getBoundingClientRect().right > document.documentElement.clientWidth + 1).length"""
    )
    assert clipped == 0


def check_viewer(page: Page) -> None:
    """A picture opens large, from the keyboard too, and closes."""
    picture = page.locator(".picture").first
    picture.scroll_into_view_if_needed()
    before = picture.locator("img").bounding_box()
    picture.click()
    large = page.locator("#large")
    assert page.locator("#viewer").is_visible() and before is not None
    found = large.bounding_box()
    assert found is not None and found["width"] > min(before["width"], 0.85 * page.viewport_size["width"])  # type: ignore[index]
    assert large.get_attribute("src") == picture.locator("img").get_attribute("src")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    picture.focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.locator("#close").click()
    assert not page.locator("#viewer").is_visible()
