"""A real browser for tests: Playwright drives the machine's own Chromium, headless.

    def test_page(open_page: OpenPage, screenshot: Screenshot) -> None:
        page = open_page(width=400, dark=True)
        page.goto(url)
        assert_charts_drawn(page)
        screenshot(page, "report-narrow-dark")

Fixtures (``conftest.py`` beside this makes them known): ``browser``, ``open_page``, ``page_errors``, ``page_requests``
and ``screenshot``. Whatever a page writes to the console as an error, and every exception in it, fails its test at the
end; a test that provokes one clears ``page_errors``.

The browser lives as long as one test module. Playwright's synchronous interface leaves an event loop marked as running
in this thread until it is stopped, and other tests have loops of their own. A machine without Chromium skips these
tests in one line; where ``CI=true`` they fail instead, since a page that nobody looked at is not known to work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "img"
NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = "no Chromium on this machine, so no browser test was run: apt-get install chromium"
DRAWN_WITHIN_MS = 15_000
STEP_WITHIN_MS = 15_000


class OpenPage(Protocol):
    """``open_page(...)``: a new, empty page in a context of its own (no cookies, no cache)."""

    def __call__(self, width: int = 1280, height: int = 900, *, dark: bool = False, offline: bool = False) -> Page: ...


class Screenshot(Protocol):
    """``screenshot(page, name)``: where the PNG lies; ``whole``: the page, not only what fits the window. Of a locator:
    that part of its page."""

    def __call__(self, page: Page | Locator, name: str, *, whole: bool = False) -> Path: ...


def find_chromium() -> str | None:
    """The path of the machine's Chromium, or None. Playwright would rather download one of its own."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def need_chromium() -> str:
    """As ``find_chromium``; without one it skips, and in CI it fails."""
    found = find_chromium()
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(NO_BROWSER, pytrace=False)
    return found or pytest.skip(NO_BROWSER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skipped here, and not by the fixture, all tests that want a browser are told in one line."""
    if "browser" in getattr(item, "fixturenames", ()):
        need_chromium()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, for one module."""
    executable = need_chromium()
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=executable, headless=True, chromium_sandbox=not root, args=["--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture
def page_errors() -> list[str]:
    """What the pages of this test wrote to the console as errors, and exceptions in them."""
    return []


@pytest.fixture
def page_requests() -> list[str]:
    """The URL of everything that the pages of this test asked for, data: and blob: left out."""
    return []


@pytest.fixture
def open_page(browser: Browser, page_errors: list[str], page_requests: list[str]) -> Iterator[OpenPage]:
    """Opens pages, closes them at the end, and fails when one had an error."""
    contexts: list[BrowserContext] = []

    def open_one(width: int = 1280, height: int = 900, *, dark: bool = False, offline: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            offline=offline,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(STEP_WITHIN_MS)
        _listen(page, page_errors, page_requests)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not page_errors, "\n".join(["errors in the page:", *page_errors])


def _listen(page: Page, errors: list[str], requests: list[str]) -> None:
    def console(message: Any) -> None:
        if message.type == "error":
            errors.append(f"console: {message.text} ({message.location.get('url', '')})")

    def request(asked: Any) -> None:
        if not asked.url.startswith(("data:", "blob:")):
            requests.append(asked.url)

    page.on("console", console)
    page.on("pageerror", lambda error: errors.append(f"exception: {error}"))
    page.on("request", request)


def for_the_docs() -> bool:
    """Whether pictures are taken for the documentation."""
    return os.environ.get("PDBENCH_SCREENSHOTS") == "1"


@pytest.fixture
def screenshot(tmp_path: Path) -> Screenshot:
    """Takes screenshots: for the documentation (``PDBENCH_SCREENSHOTS=1``), else into the test's own folder."""
    folder = IMAGES if for_the_docs() else tmp_path

    def take(page: Page | Locator, name: str, *, whole: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        asked: dict[str, Any] = {"full_page": True} if whole else {}
        page.screenshot(path=path, animations="disabled", **asked)
        return path

    return take


_CHARTS = """() => {
  const seek = (root, wanted, found) => {
    for (const element of root.querySelectorAll("*")) {
      if (wanted(element)) found.push(element);
      if (element.shadowRoot) seek(element.shadowRoot, wanted, found);
    }
    return found;
  };
  const painted = (canvas) => {
    const pen = canvas.width && canvas.height ? canvas.getContext("2d") : null;
    if (pen === null) return false;
    const pixels = new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return pixels.some((pixel) => pixel !== pixels[0]);
  };
  const hosts = seek(document, (e) => e.classList.contains("bk-Canvas"), []).filter((e) => e.checkVisibility());
  return hosts.map((host) => {
    const box = host.getBoundingClientRect();
    const inside = seek(host.shadowRoot ?? host, (e) => e.tagName === "CANVAS", []);
    const found = inside.length ? inside : seek(host, (e) => e.tagName === "CANVAS", []);
    return {width: Math.round(box.width), height: Math.round(box.height), drawn: found.some(painted)};
  });
}"""


def charts(page: Page) -> list[dict[str, Any]]:
    """Every chart of the page that is not hidden: ``width`` and ``height`` in CSS pixels, and whether it is ``drawn``:
    one of its canvases has pixels that differ. Bokeh's canvases lie in shadow roots, where selectors do not reach."""
    found: list[dict[str, Any]] = page.evaluate(_CHARTS)
    return found


def assert_charts_drawn(page: Page, at_least: int = 1) -> int:
    """Wait until there are ``at_least`` so many charts and all have a size and are not blank; how many there are."""
    ready = f"(least) => {{ const all = ({_CHARTS})(); return all.length >= least && all.every({_GOOD}); }}"
    from playwright.sync_api import TimeoutError as TooLate

    try:
        page.wait_for_function(ready, arg=at_least, timeout=DRAWN_WITHIN_MS)
    except TooLate:
        pytest.fail(f"{at_least} charts or more should be drawn; there are {charts(page)}")
    return len(charts(page))


_GOOD = "(chart) => chart.width > 0 && chart.height > 0 && chart.drawn"
