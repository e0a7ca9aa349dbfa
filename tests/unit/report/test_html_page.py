"""The page of a stored run: what it shows, what it says where there is nothing, and that nothing in it can run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pdbench.report.html import page as page_module
from pdbench.report.html.context import Page, page_of
from pdbench.report.html.page import SECTIONS, render, write_report
from pdbench.store import write_json
from pdbench.stored import open_run
from tests.unit.documents import INVALID
from tests.unit.report.runs import search_document, write_run

VOID = {"meta", "link", "br", "img", "input", "line", "circle", "rect", "path"}
EVIL = "<script>alert(1)</script>"


class Read(HTMLParser):
    """Tags in order, what links point to, the text of each section, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sections: dict[str, str] = {}
        self.text: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [value for key, value in attrs if key in ("href", "src", "action", "data") and value]
        self.handlers += [key for key in found if key.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = str(found["id"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)
            self.sections[self._section] = self.sections.get(self._section, "") + data


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def html(whole: Path) -> str:
    return render([open_run(str(whole))])


def shown(*paths: Path, price: float | None = None) -> Read:
    return Read(render([open_run(str(path)) for path in paths], price=price))


def test_one_file_that_asks_for_nothing(html: str) -> None:
    read = Read(html)
    assert all(link.startswith(("#", "data:")) for link in read.links), read.links
    assert not read.handlers
    assert "default-src 'none'" in html
    assert len(html.encode()) < 3_000_000


def test_the_sentence_comes_first_and_every_section_follows(html: str) -> None:
    read = Read(html)
    assert "At 2 req/s one arm meets the SLO more often." in "".join(read.text[:40])
    wanted = ["validity", "slo", "rates", "latency", "stalls", "phases", "surface", "handoff", "cost", "reproduce"]
    assert [name for name in read.sections if name] == wanted
    assert "could not be made" not in "".join(read.text)


def test_every_chart_has_its_table_and_says_how_to_read_it(whole: Path) -> None:
    page = page_of([open_run(str(whole))])
    charts = [chart for build in SECTIONS.values() if (section := build(page)) for chart in section.charts]
    assert len(charts) >= 9
    for chart in charts:
        assert chart.table is not None
        assert chart.table.rows, chart.id
        assert len({len(row) for row in chart.table.rows}) == 1, chart.id
        assert len(chart.table.columns) == len(chart.table.rows[0]), chart.id
        assert chart.how.endswith("."), chart.id
    assert len({chart.id for chart in charts}) == len(charts)


def test_objectives_say_met_or_missed_in_words(html: str) -> None:
    said = Read(html).sections["slo"]
    assert "✓ met" in said
    assert "ttft p90 ≤ 400ms" in said
    assert re.search(r"▲ better.*primary", said, re.DOTALL)


def test_the_interference_picture_says_what_lines_up(html: str) -> None:
    said = Read(html).sections["stalls"]
    assert "overlap a prefill on their device" in said
    assert "disaggregated: gaps between tokens over time" in said


def test_the_command_is_quoted_for_a_shell(html: str) -> None:
    assert """pdbench compare --slo 'ttft p90 <= 400ms' 'it'"'"'s'""" in Read(html).sections["reproduce"]


def test_tables_have_captions_and_scopes(html: str) -> None:
    assert html.count("<table>") == html.count("<caption>")
    assert html.count("<table>") > 10
    assert not re.search(r"<th(?! scope)(?=[ >])", html)


def test_names_cannot_run(tmp_path: Path) -> None:
    arms = (EVIL, f"$$x$$ {EVIL}")
    reason = {"message": EVIL, "remedy": f"</style></script>{EVIL}"}
    path = write_run(
        tmp_path, arms=arms, failed=(5,), sentence=EVIL, warnings=[EVIL, "]]><!--"],
        validity={"status": "VALID", "reasons": [reason]}, fingerprint={EVIL: EVIL, "arms": {EVIL: {EVIL: [EVIL]}}},
        workload={"name": f"\"'>{EVIL}", "arrivals": {}, "num_requests": 3, "warmup": 0},
    )  # fmt: skip
    text = render([open_run(str(path))])
    read = Read(text)
    assert read.tags.count("script") == 4
    assert "<script>alert" not in text
    assert not read.handlers
    assert EVIL in "".join(read.text)
    assert "could not be made" not in "".join(read.text)


def test_an_invalid_run_has_a_banner_and_no_verdict(tmp_path: Path) -> None:
    read = shown(write_run(tmp_path, validity=INVALID, sentence="No verdict: the run is INVALID."))
    before = "".join(read.text[:60])
    assert "INVALID" in before
    assert "requests left late. What to do stands below." in before
    assert "free a core" in read.sections["validity"]
    assert not re.search(
        r"▲|▼|\bbetter\b|\bmet\b(?!\?)|missed|leads", read.sections["slo"] + read.sections["surface"] + before
    )


BARE: dict[str, Callable[[Path], Path]] = {
    "one request": lambda folder: write_run(folder, requests=3, tokens=1, pairs=1),
    "one arm": lambda folder: write_run(folder, arms=("alone",)),
    "no server data": lambda folder: write_run(folder, stamps=False),
    "unfinished": lambda folder: write_run(folder, seal=False),
    "empty": lambda folder: write_run(folder, requests=0),
    "all failed": lambda folder: write_run(folder, failed=range(14)),
    "no slo": lambda folder: write_run(folder, slo=[]),
}


@pytest.mark.parametrize("name", BARE)
def test_whatever_is_missing_is_said(name: str, tmp_path: Path) -> None:
    read = shown(BARE[name](tmp_path))
    said = "".join(read.text)
    assert "could not be made" not in said, said
    if name in ("no server data", "unfinished"):
        assert ("No server stamps." in read.sections["phases"]) == (name == "no server data")
    if name == "unfinished":
        assert "unfinished" in said
    if name == "one arm":
        assert "One arm only." in read.sections["surface"]


def test_only_a_summary(tmp_path: Path) -> None:
    whole = write_run(tmp_path)
    alone = tmp_path / "alone.json"
    alone.write_bytes((whole / "summary.json").read_bytes())
    read = shown(alone)
    assert "could not be made" not in "".join(read.text)
    assert "✓ met" in read.sections["slo"]


def search(folder: Path) -> Path:
    path = folder / "20260102T040000Z-chat-1a2b3c4"
    path.mkdir()
    write_json(path / "summary.json", search_document())
    return path


def test_a_search_alone_and_beside_a_comparison(tmp_path: Path) -> None:
    found = search(tmp_path)
    alone = shown(found)
    assert "slo" not in alone.sections
    assert "Goodput" in alone.sections["rates"]
    both = shown(write_run(tmp_path), found)
    assert "No search among these runs." not in both.sections["rates"]
    assert "They carry as much." in both.sections["rates"]
    assert "✓ met" in both.sections["slo"]


def test_without_a_search_it_says_how_to_get_one(html: str) -> None:
    assert "pdbench search" in Read(html).sections["rates"]


def test_several_runs_show_a_trend_and_the_newest_in_full(tmp_path: Path) -> None:
    newer = "20260103T030405Z-chat-1a2b3c4"
    read = shown(
        write_run(tmp_path, name=newer, sentence="The newer one."), write_run(tmp_path, sentence="The older one.")
    )
    assert "The newer one." in "".join(read.text[:40])
    assert "3 Jan" in "".join(read.text) or newer in read.sections["trend"]


def test_single_runs_stand_side_by_side_and_are_compared_only_under_one_plan(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path, arms=(arm,), name=f"2026010{day}T030405Z-chat-1a2b3c4", pairs=1)
        for day, arm in ((2, "one"), (3, "two"))
    ]
    read = shown(*paths)
    assert "one: objectives" in read.sections["slo"]
    assert "two: objectives" in read.sections["slo"]
    assert "two against one" in read.sections["surface"]
    manifest = paths[1] / "manifest.json"
    manifest.write_text(manifest.read_text().replace("abab", "cdcd"))
    assert "different work" in shown(*paths).sections["surface"]


def test_a_price_becomes_money(whole: Path) -> None:
    assert "2.5 a device-hour" in shown(whole, price=2.5).sections["cost"]


def test_a_section_that_fails_does_not_cost_the_others(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(page: Page) -> Any:
        raise ZeroDivisionError(f"oh {EVIL}")

    monkeypatch.setattr(page_module, "SECTIONS", {"Broken": broken, **SECTIONS})
    read = shown(whole)
    assert "ZeroDivisionError" in "".join(read.text)
    assert "slo" in read.sections
    assert read.tags.count("script") == 4


ODD: list[dict[str, Any]] = [
    {"workload": "x", "sentence": None, "comparisons": "no"},
    {"arms": [], "slo": ["nonsense"], "validity": "yes", "fingerprint": 7},
]


@pytest.mark.parametrize("changes", ODD, ids=["head", "arms"])
def test_a_document_that_somebody_edited_still_has_a_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_run(tmp_path, pairs=1)
    summary = path / "summary.json"
    write_json(summary, json.loads(summary.read_text()) | changes)
    read = shown(path)
    assert "phases" in read.sections


def test_it_is_written_beside_the_run(tmp_path: Path) -> None:
    path = write_run(tmp_path, pairs=1)
    assert write_report(path) == path / "report.html"
    assert [one.name for one in path.glob(".*.part")] == []


def test_two_may_write_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path, pairs=1)
    texts = iter(["outer", "inner"])
    monkeypatch.setattr("pdbench.report.html.page.render", lambda *_, **__: next(texts))
    replace = Path.replace

    def late(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        write_report(path)  # another one, between writing and putting in place
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    write_report(path)
    assert (path / "report.html").read_text() == "outer"
    assert [one.name for one in path.glob(".*.part")] == []
