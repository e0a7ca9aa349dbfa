"""The browser of the tests: it sees what it is there to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import browser as browsers
from tests.e2e.browser import OpenPage, assert_charts_drawn

pytestmark = pytest.mark.e2e

_WIPE = """() => {
  const wipe = (root) => root.querySelectorAll("*").forEach((element) => {
    if (element.tagName === "CANVAS") element.width = element.width;
    if (element.shadowRoot) wipe(element.shadowRoot);
  });
  wipe(document);
}"""


def test_a_chart_that_is_drawn_and_one_that_was_wiped(
    tmp_path: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdbench.report.charts import embed, figure, inline_js

    chart = figure("t", x_label="x", y_label="y")
    chart.line([1, 2, 3], [1, 2, 4])
    script, divs = embed({"a": chart})
    path = tmp_path / "page.html"
    path.write_text(f"<script>{inline_js()}</script>{divs['a']}<script>{script}</script>", encoding="utf-8")
    page = open_page(offline=True)
    page.goto(path.as_uri())
    assert assert_charts_drawn(page) == 1
    page.evaluate(_WIPE)
    monkeypatch.setattr(browsers, "DRAWN_WITHIN_MS", 200)
    with pytest.raises(pytest.fail.Exception, match="'drawn': False"):
        assert_charts_drawn(page)


def test_errors_and_requests_are_heard(open_page: OpenPage, page_errors: list[str], page_requests: list[str]) -> None:
    page = open_page(offline=True)
    page.set_content(
        "<script>console.error('boo'); fetch('http://127.0.0.1:9/x').catch(() => { throw 'bad' })</script>"
    )
    page.wait_for_timeout(100)
    assert {"console: boo", "exception: bad"} <= {text.split(" (")[0] for text in page_errors}
    assert page_requests == ["http://127.0.0.1:9/x"]
    page_errors.clear()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_chromium(ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(browsers, "NAMES", ("no-such-browser",))
    with pytest.raises(outcome, match="apt-get install chromium"):
        browsers.need_chromium()
