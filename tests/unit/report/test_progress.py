"""Progress: lines for logs, a drawing for terminals, silence on request."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from pdbench.live import ArmView
from pdbench.report.course import Course, Runs, clock
from pdbench.report.livetable import live_table
from pdbench.report.progress import Drawn, Lines, Silent, line_of, make_progress

RUNNING = ArmView("split", "running", 1, 6, 12, 70, 2, 310.0, 12.1, 25.0)
ARMS = [
    ArmView("colocated-chunked", "complete", 1, 6, 70, 70, 0, 153.0, 7.27, 18.7, 1.0),
    ArmView("colocated", "running", 1, 6, 12, 70, 0, 108.4, 6.55, 86.5, 0.9),
    ArmView("disaggregated", "ready", 0, 6),
]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line() -> None:
    assert line_of(RUNNING) == ("split pair 2/6 running 12/70, 2 failed, P90 TTFT 310 ms, TPOT 12.1 ms, gap 25 ms")
    assert line_of(ArmView("split", "starting")) == "split starting"


def test_lines_are_few() -> None:
    stream, now = io.StringIO(), Clock()
    progress = Lines(stream, now=now)
    for _ in range(100):
        progress.show(RUNNING)
        now.now += 0.15
    progress.event("pair done")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("[  10.")
    assert lines[-1].endswith("pair done")


def test_lines_tell_what_is_left() -> None:
    stream, now = io.StringIO(), Clock()
    progress = Lines(stream, runs="all", now=now)
    progress.show(replace(RUNNING, pair=0, pairs=2, done=0))
    now.now += 12
    progress.show(replace(RUNNING, pair=0, pairs=2, done=35))
    assert stream.getvalue().splitlines()[-1].endswith("gap 25 ms; 25 % done, about 0:36 left")


@pytest.mark.parametrize(
    ("runs", "views", "after_s", "told"),
    [
        ("all", [], 9, ""),
        ("all", [ArmView("a", "starting", pairs=2)], 9, ""),
        ("all", [ArmView("a", "running", 0, 2, 1, 100)], 9, "0 % done"),  # too early to foretell
        ("all", [ArmView("a", "running", 1, 2, 50, 100)], 1, "75 % done"),
        ("all", [ArmView("a", "running", 1, 2, 50, 100)], 90, "75 % done, about 0:30 left"),
        (
            "all",
            [ArmView("a", "running", 0, 2, 100, 100), ArmView("b", "ready", pairs=2)],
            30,
            "25 % done, about 1:30 left",
        ),
        ("at most", [ArmView("a", "running", 7, 16, 50, 50)], 60, "at most 1:00 left"),
        ("all", [ArmView("a", "complete", 1, 2, 9, 9)], 90, "100 % done"),
        ("open", [ArmView("a", "running", 0, 1, 50, 100)], 60, ""),
        # a pair that is run again has a number beyond those that were planned
        ("all", [ArmView("a", "running", 2, 3, 0, 9), ArmView("b", "complete", 1, 2, 9, 9)], 60, ""),
    ],
)
def test_the_course(runs: Runs, views: list[ArmView], after_s: float, told: str) -> None:
    course = Course(runs)
    for view in views:
        course.see(view, 5.0)
    assert course.told(5.0 + after_s) == told


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")])
def test_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (200, "arm pair state requests TTFT TPOT gap in time"),
        (80, "arm pair state requests TTFT TPOT gap in time"),
        (60, "arm pair state requests TTFT TPOT gap"),
        (40, "arm state requests TTFT TPOT"),
        (20, "arm requests"),
    ],
)
def test_the_live_table_fits_every_width(width: int, heads: str) -> None:
    head, *rows = live_table(ARMS, width)
    assert head.plain.split() == heads.split()
    assert all(row.cell_len <= width for row in (head, *rows))
    assert "12/70" in rows[1].plain
    assert ("━" in rows[0].plain) == (width >= 80)


def test_a_live_row_says_all_there_is() -> None:
    rows = [row.plain for row in live_table(ARMS, 100)]
    assert rows[2].split()[:8] == ["colocated", "2/6", "running", "12/70", "108", "6.55", "86.5", "90"]
    assert rows[3].split() == ["disaggregated", "ready"]
    failed = live_table([replace(ARMS[1], failed=3)], 100)
    assert "failed" in failed[0].plain


@pytest.mark.parametrize("name", ["x" * 60, "日本語サーバー" * 5, "[red]x[/red]", "\x1b[2J\x07"])
def test_names_break_nothing(name: str) -> None:
    views = [replace(ARMS[1], name=name), ARMS[2]]
    for row in live_table(views, 80):
        assert row.cell_len <= 80
        assert "\x1b" not in row.plain
        assert row.plain.isprintable()


def drawing(**asked: Any) -> tuple[Drawn, io.StringIO, Console, Clock]:
    stream, now = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=asked.pop("width", 100), height=30, _environ={})
    return Drawn(console, now=now, **asked), stream, console, now


def test_drawn_on_a_terminal() -> None:
    progress, stream, _, _ = drawing()
    progress.show(RUNNING)
    progress.event("split: ready\x1b[2J")
    progress.close()
    assert "split: ready\\x1b[2J" in stream.getvalue()
    assert "12/70" in stream.getvalue()


def test_it_is_drawn_four_times_a_second_at_most() -> None:
    progress, stream, _, now = drawing()
    for done in range(100):
        progress.show(replace(RUNNING, done=done))
        now.now += 0.05
    progress.close()
    assert 15 <= stream.getvalue().count("requests") <= 22  # 5 s, and once more at the end


def test_what_is_left_is_above_the_table() -> None:
    progress, stream, _, now = drawing(runs="all")
    progress.show(ArmView("split", "starting", pairs=2))
    assert "the servers start" in stream.getvalue()
    progress.show(ArmView("split", "running", 0, 2, 0, 70))
    now.now += 20
    progress.show(ArmView("split", "running", 0, 2, 70, 70))
    progress.close()
    assert "0:20 elapsed, 50 % done, about 0:20 left" in stream.getvalue()


@pytest.mark.parametrize(("width", "folded"), [(100, 4), (50, 4 + 2)])
def test_a_narrowed_terminal_has_more_lines_to_take_back(width: int, folded: int) -> None:
    """Two of the four lines were wider than 50 cells and are two lines each now."""
    progress, stream, console, _ = drawing()
    for view in ARMS[:2]:
        progress.show(view)
    lines = stream.getvalue().splitlines()[-4:]
    assert sum(cell_len(line) > 50 for line in lines) >= 2
    sent = len(stream.getvalue())
    console.width = width
    progress.event("an event")
    ups = stream.getvalue()[sent:].partition("an event")[0].count("\x1b[1A")
    progress.close()
    assert ups >= folded - 1 if width < 100 else ups == folded - 1


@pytest.mark.parametrize(("term", "kind"), [("xterm", Drawn), ("dumb", Lines), ("", Drawn)])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch, term: str, kind: type[Any]
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = make_progress(quiet=False, color=True)
    progress.close()
    assert type(progress) is kind


def test_elsewhere_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(make_progress(quiet=False, color=True), Lines)


def test_quiet_is_silent() -> None:
    assert isinstance(make_progress(quiet=True, color=True), Silent)
