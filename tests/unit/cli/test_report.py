"""``pdbench report``: every format, where it goes, and what is refused; and the page that a finished run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pdbench.cli import report as cli
from pdbench.cli.main import run as pdbench
from pdbench.report.formats import FORMATS
from tests.unit.report.runs import write_run


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"), pairs=1)


def test_the_command_knows_the_formats() -> None:
    assert set(cli.FORMATS) == set(FORMATS)


@pytest.mark.parametrize(("name", "begins"), [("text", "compare:"), ("json", "{"), ("md", "#")])
def test_what_is_read_goes_to_stdout(stored: Path, capsys: pytest.CaptureFixture[str], name: str, begins: str) -> None:
    assert pdbench(["report", str(stored), "--format", name]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(begins)
    assert out.err == ""


@pytest.mark.parametrize(
    ("name", "files"),
    [("html", ["report.html"]), ("csv", ["requests.csv", "arms.csv"]), ("perfetto", ["perfetto.json"])],
)
def test_what_is_opened_goes_into_the_runs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, files: list[str]
) -> None:
    path = write_run(tmp_path, pairs=1)
    assert pdbench(["report", str(path), "--format", name]) == 0
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.splitlines() == [f"written: {path / one}" for one in files]
    assert all((path / one).stat().st_size > 100 for one in files)


def test_output_names_a_file_or_a_folder(stored: Path, tmp_path: Path) -> None:
    assert pdbench(["report", str(stored), "--format", "text", "-o", str(tmp_path / "a.txt")]) == 0
    assert "joint attainment" in (tmp_path / "a.txt").read_text()
    assert pdbench(["report", str(stored), "--format", "csv", "-o", str(tmp_path / "new")]) == 0
    assert sorted(one.name for one in (tmp_path / "new").iterdir()) == ["arms.csv", "requests.csv"]


def test_several_runs(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path, name="20260105T030405Z-chat-1a2b3c4", pairs=1)
    assert pdbench(["report", str(stored), str(other), "--json"]) == 0
    assert [one["run"] for one in json.loads(capsys.readouterr().out)] == [stored.name, other.name]
    page = tmp_path / "both.html"
    assert pdbench(["report", str(stored), str(other), "--format", "html", "-o", str(page)]) == 0
    assert 'id="trend"' in page.read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "junit"], "only a gate passes or fails"),
        (["--format", "html", "--price-per-device-hour", "-1"], "a price is above 0"),
        (["--format", "html", "--price-per-device-hour", "nan"], "a price is above 0"),
        (["--format", "html", "-o", "/no/such/folder/x.html"], "cannot write /no/such/folder/x.html"),
        (["--format", "pdf"], "is not one of"),
    ],
)
def test_bad_input(stored: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    assert pdbench(["report", str(stored), *args]) == 2
    assert message in capsys.readouterr().err


def outcome(path: Path, kind: str = "compare") -> Any:
    return SimpleNamespace(run_dir=path, document={"kind": kind})


def test_a_finished_run_leaves_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path, pairs=1)
    cli.keep_page(outcome(path), {"no_report": True})
    cli.keep_page(outcome(path, "tune"), {"no_report": False})
    assert not (path / "report.html").exists()
    cli.keep_page(outcome(path), {"no_report": False})
    assert (path / "report.html").is_file()
    assert capsys.readouterr().err == f"report: {path / 'report.html'}\n"


def test_a_page_that_cannot_be_made_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.keep_page(outcome(tmp_path / "nowhere"), {})
    said = capsys.readouterr().err
    assert said.startswith("no report.html: ")
    assert said.count("\n") == 1
