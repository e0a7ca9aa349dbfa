"""The documentation as a site: it builds with ``--strict``, asks for nothing from elsewhere, and fits a telephone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.browser import ROOT, OpenPage

pytestmark = pytest.mark.e2e

PAGES = ("index.html", "quickstart.html", "reference/cli.html", "reference/documents.html")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not a line for each request."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A broken link, a missing anchor, a page outside the navigation: each fails the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_it_builds(site: Path) -> None:
    assert "pdbench compare" in (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert not list(site.rglob("*.py"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_pages_need_nothing_from_elsewhere_and_fit(
    url: str, open_page: OpenPage, page_requests: list[str], width: int, dark: bool
) -> None:
    page = open_page(width=width, dark=dark)
    for name in PAGES:
        page.goto(f"{url}/{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert all(asked.startswith(url) for asked in page_requests)


def test_the_search_finds(url: str, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{url}/index.html")
    page.get_by_role("textbox", name="Search").click()
    said = page.locator(".md-search-result__meta")
    said.get_by_text("Type to start searching").wait_for()  # before, what is typed is lost
    page.keyboard.type("goodput")
    said.get_by_text("matching documents").wait_for()
