"""Progress: lines for logs, a drawing for terminals, silence on request."""

from __future__ import annotations

import io

from rich.console import Console

from pdbench.live import ArmView
from pdbench.report.progress import Drawn, Lines, Silent, line_of, make_progress

RUNNING = ArmView("split", "running", 1, 6, 12, 70, 2, 310.0, 12.1, 25.0)


def test_a_line() -> None:
    assert line_of(RUNNING) == ("split pair 2/6 running 12/70, 2 failed, P90 TTFT 310 ms, TPOT 12.1 ms, gap 25 ms")
    assert line_of(ArmView("split", "starting")) == "split starting"


def test_lines_are_few() -> None:
    stream = io.StringIO()
    progress = Lines(stream)
    for _ in range(100):
        progress.show(RUNNING)
    progress.event("pair done")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[-1].endswith("pair done")


def test_drawn_on_a_terminal() -> None:
    stream = io.StringIO()
    progress = Drawn(Console(file=stream, force_terminal=True, width=100))
    progress.show(RUNNING)
    progress.event("split: ready")
    progress.close()
    assert "split: ready" in stream.getvalue()
    assert "12/70" in stream.getvalue()


def test_quiet_is_silent() -> None:
    assert isinstance(make_progress(quiet=True, color=True), Silent)
