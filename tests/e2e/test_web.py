"""``pdbench web`` in a browser: the form, live values that move, an edited rate, a stop, the report; workers too.

Locust's page and ours must not write a single error to the console. With ``PDBENCH_SCREENSHOTS=1`` the screenshots of
the documentation are made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser import OpenPage, Screenshot, assert_charts_drawn
from tests.e2e.transcript import Desk, tiny, until
from tests.e2e.webdesk import Web, web

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e

CHARTS = 4  # a server that is not ours tells nothing of its queues and devices
_POINTS = "() => Bokeh.documents[0].get_model_by_name('arm-0').data.t.length"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def fill(page: Page, url: str, workload: str, **changes: str) -> None:
    """The start form of Locust's page."""
    given = {"backends": "", "baseURL": url, "workloadFile": workload, "numRequests": "900"} | changes
    page.locator("input[name=backends]").wait_for()
    for name, value in given.items():
        page.fill(f"input[name={name}]", value)


def start(page: Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


def until_it_changes(page: Page, read: Callable[[], str | None]) -> None:
    """Poll until a text of the page is another one than it was."""
    before = read()
    for _ in range(200):
        if read() != before:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"still {before!r}")


def slo_tab(page: Page, objective: str = "ttft p90 <= 2s") -> None:
    page.get_by_role("tab", name="SLO").click()
    page.get_by_role("cell", name=objective).first.wait_for()


def test_from_the_form_to_the_report(desk: Desk, tmp_path: Path, open_page: OpenPage) -> None:
    with desk.fake(tmp_path) as url, web(desk, "-o", str(tmp_path / "out"), folder=tmp_path) as served:
        page = open_page()
        page.goto(served.url)
        fill(page, url, tiny(tmp_path), rate="-1")
        for hidden in ("userCount", "spawnRate", "host", "runTime"):
            assert not page.locator(f"input[name={hidden}]").is_visible()
        start(page)
        page.get_by_text("Rate: rate must be greater than 0, got -1").wait_for()
        assert served.news()["state"] == "ready"
        page.fill("input[name=rate]", "30")
        start(page)
        slo_tab(page)
        until_it_changes(page, lambda: page.locator("tbody").inner_text())
        page.get_by_role("cell", name="met", exact=True).first.wait_for()

        live = open_page()
        live.goto(f"{served.url}/pdbench")
        live.get_by_text("server runs").wait_for()
        assert_charts_drawn(live, at_least=CHARTS)
        until_it_changes(live, lambda: live.locator(".slo tbody").inner_text())
        live.wait_for_function(f"({_POINTS})() > 5")
        edit_the_rate(live)
        live.reload()
        live.get_by_text("server runs").wait_for()
        live.wait_for_function(f"({_POINTS})() > 5")

        a_stop_that_fails(live)
        live.get_by_role("button", name="Stop").click()
        live.locator("#result").wait_for()
        assert_charts_drawn(live, at_least=CHARTS)
        assert live.get_by_text("the rate was edited while it ran").count() > 0
        assert live.locator("body").get_attribute("data-state") == "stopped"
        page.get_by_role("button", name="New").wait_for()
        live.get_by_role("link", name="Open the report").click()
        live.get_by_role("heading", name="Is it valid?").wait_for()
        assert_charts_drawn(live)
        leave(page, live)
    assert not desk.leftovers()


def edit_the_rate(live: Page) -> None:
    live.fill("#new-rate", "5000")
    live.get_by_role("button", name="Edit rate").click()
    live.get_by_text("is out of range").wait_for()
    live.fill("#new-rate", "45")
    live.get_by_role("button", name="Edit rate").click()
    live.get_by_text("(45 req/s now)").wait_for()
    live.get_by_text("It will be INVALID: the rate was edited while it ran").wait_for()


def a_stop_that_fails(live: Page) -> None:
    live.route("**/pdbench/stop", lambda route: route.fulfill(content_type="text/html", body="a proxy's page"))
    live.get_by_role("button", name="Stop").click()
    live.get_by_text("It was not stopped (HTTP 200, a proxy's page).").wait_for()
    live.unroute("**/pdbench/stop")


def test_with_two_workers_wide_and_narrow(desk: Desk, tmp_path: Path, open_page: OpenPage) -> None:
    with (
        desk.fake(tmp_path) as url,
        web(desk, "-o", str(tmp_path / "out"), "--processes", "2", folder=tmp_path) as served,
    ):
        page = open_page(dark=True)
        page.goto(served.url)
        fill(page, url, tiny(tmp_path), numRequests="150", rate="30")
        start(page)
        slo_tab(page)
        wide, narrow = open_page(dark=True), open_page(width=400)
        for live in (wide, narrow):
            live.goto(f"{served.url}/pdbench")
            assert_charts_drawn(live, at_least=CHARTS)
            assert live.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("tab", name="Workers").click()
        page.get_by_role("cell", name="ready").nth(1).wait_for()
        for live in (wide, narrow):
            live.locator("#result").wait_for(timeout=40_000)
            assert_charts_drawn(live, at_least=CHARTS)
            assert live.evaluate("document.documentElement.scrollWidth <= innerWidth")
        leave(page, wide, narrow)
    assert not desk.leftovers()


def test_a_login_page(desk: Desk, open_page: OpenPage, page_errors: list[str], screenshot: Screenshot) -> None:
    with web(desk, "--web-login", PDBENCH_WEB_USER="me", PDBENCH_WEB_PASSWORD="secret") as served:
        page = open_page()
        page.goto(f"{served.url}/pdbench")
        log_in(page, "wrong")
        page.get_by_text("wrong password").wait_for()
        screenshot(page, "web-login")
        log_in(page, "secret")
        page.locator("input[name=backends]").wait_for()
        page.goto(f"{served.url}/pdbench")
        page.get_by_text("No run yet").wait_for()
        assert_no_secret(page, served)
        leave(page)


def leave(*pages: Page) -> None:
    """Before the server ends: a page that goes on asking would have errors."""
    for page in pages:
        page.goto("about:blank")


def log_in(page: Page, password: str) -> None:
    page.fill("input[name=username]", "me")
    page.fill("input[name=password]", password)
    page.get_by_role("button", name="Login").click()


def assert_no_secret(page: Page, served: Web) -> None:
    assert "secret" not in page.content()
    assert "secret" not in served.said


@pytest.mark.skipif(os.environ.get("PDBENCH_SCREENSHOTS") != "1", reason="pictures are made with PDBENCH_SCREENSHOTS=1")
@pytest.mark.timeout(400)
def test_pictures(desk: Desk, tmp_path: Path, open_page: OpenPage, screenshot: Screenshot) -> None:
    """A comparison of the two deployments, with two workers."""
    with web(desk, "-o", "results", "--processes", "2", folder=tmp_path) as served:
        page = open_page()
        page.goto(served.url)
        until(lambda: served.get("/worker-count").json()["worker_count"] == 2, "two workers")
        page.reload()
        page.locator("input[name=backends]").wait_for()
        page.fill("input[name=SLO]", "ttft p90 <= 400ms; tpot p90 <= 40ms; tbt p90 <= 40ms")
        page.fill("input[name=rate]", "1.5")
        screenshot(page, "web-form", whole=True)
        start(page)
        live, narrow = open_page(), open_page(width=400, dark=True)
        live.goto(f"{served.url}/pdbench")
        live.get_by_text("disaggregated runs").wait_for(timeout=120_000)
        live.wait_for_function(
            "() => document.querySelector('.card[data-arm=\\'1\\'] progress').value > 0.7", timeout=60_000
        )
        narrow.goto(f"{served.url}/pdbench")
        assert_charts_drawn(narrow, at_least=6)
        slo_tab(page, "ttft p90 <= 400ms")
        page.wait_for_timeout(2500)
        screenshot(page, "web-slo")
        screenshot(live, "web-live", whole=True)
        narrow.wait_for_timeout(1500)
        screenshot(narrow, "web-live-400-dark", whole=True)
        live.locator("#result").wait_for(timeout=200_000)
        live.emulate_media(color_scheme="dark")
        assert_charts_drawn(live, at_least=6)
        live.wait_for_timeout(1500)
        screenshot(live, "web-result-dark", whole=True)
        leave(page, live, narrow)
    assert not desk.leftovers()
