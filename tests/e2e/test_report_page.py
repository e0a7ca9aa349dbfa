"""``report.html`` in a browser: opened from disk, offline, narrow and wide, light and dark; every chart drawn."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdbench.cli.main import run as pdbench
from pdbench.store import write_json
from tests.e2e.browser import OpenPage, Screenshot, assert_charts_drawn, for_the_docs
from tests.unit.report.runs import search_document, write_run

pytestmark = pytest.mark.e2e

CHARTS = 11
ASKED = "PDBENCH_SCREENSHOT_RUNS"
RUNS = [path for path in os.environ.get(ASKED, "").split(os.pathsep) if path]
"""A stored comparison of the three reference deployments, and a search."""
PICTURES = {
    "rates-attainment": "report-rates",
    "stalls-1": "report-gaps",
    "phases-2": "report-phases",
    "surface-1": "report-limits",
}

_INKS = """() => {
  const models = Bokeh.documents.flatMap((doc) => Array.from((doc.all_models ?? doc._all_models).values()));
  return [...new Set(models.filter((m) => /Axis$/.test(m.type)).map((m) => m.axis_label_text_color))];
}"""
_WIDER = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre"))
  .map((e) => e.tagName + "." + e.className)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison and a search, as the command writes their page."""
    folder = tmp_path_factory.mktemp("report")
    path = write_run(folder, requests=30, tokens=16)
    found = folder / "20260102T040000Z-chat-1a2b3c4"
    found.mkdir()
    write_json(found / "summary.json", search_document())
    page = folder / "report.html"
    assert pdbench(["report", str(path), str(found), "--format", "html", "-o", str(page)]) == 0
    return page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_opens_from_disk_with_the_network_blocked(
    report: Path, open_page: OpenPage, page_requests: list[str], width: int, dark: bool
) -> None:
    page = open_page(width=width, dark=dark, offline=True)
    page.goto(report.as_uri())
    assert assert_charts_drawn(page, at_least=CHARTS) == CHARTS
    assert page_requests == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(_WIDER) == []
    assert page.evaluate(_INKS) == ["#a5adb8" if dark else "#57606a"]


def test_colours_follow_the_scheme_and_the_legend_hides_an_arm(report: Path, open_page: OpenPage) -> None:
    page = open_page(offline=True)
    page.goto(report.as_uri())
    assert_charts_drawn(page, at_least=CHARTS)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => ({_INKS})()[0] === '#a5adb8'")
    button = page.locator("#latency-ttft button[data-arm='1']")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    hidden = "Bokeh.documents[0].get_model_by_id ? [...Bokeh.documents[0]._all_models.values()] : []"
    tagged = f"({hidden}).filter((m) => m.name === 'arm-1')"
    assert page.evaluate(f"{tagged}.length > 3 && {tagged}.every((m) => !m.visible)")
    page.locator("#stalls-0 summary").click()
    assert page.locator("#stalls-0 table").is_visible()


@pytest.mark.skipif(not (for_the_docs() and RUNS), reason=f"pictures are taken of real runs, named in {ASKED}")
def test_pictures_for_the_documentation(tmp_path: Path, open_page: OpenPage, screenshot: Screenshot) -> None:
    written = tmp_path / "report.html"
    assert pdbench(["report", *RUNS, "--format", "html", "-o", str(written)]) == 0
    page = open_page()
    page.goto(written.as_uri())
    assert_charts_drawn(page, at_least=CHARTS)
    for chart, name in PICTURES.items():
        screenshot(page.locator(f"#{chart}"), name)
