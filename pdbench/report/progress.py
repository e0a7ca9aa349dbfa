"""What is going on, on stderr, from the first second: what starts, how far each arm is, live P90s, what is left.

Three faces of one small protocol: a table redrawn in place on a terminal (at most four times a second and when an
arm changes its state, only when news arrive: no thread, since gevent patches threads), a line an event and a line
every ten seconds elsewhere (logs of CI, dumb terminals), and silence for ``-q``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pdbench.live import ArmView, Progress
from pdbench.report.clean import clean, clean_lines
from pdbench.report.course import Course, Runs, clock
from pdbench.report.grid import Prose
from pdbench.report.livetable import live_table
from pdbench.report.terminal import console_of

DRAW_EVERY_S = 0.25
LINE_EVERY_S = 10.0


class Silent:
    """``-q``."""

    def event(self, text: str) -> None:
        del text

    def show(self, view: ArmView) -> None:
        del view

    def close(self) -> None:
        pass


class Lines:
    """For logs: events at once, progress every ten seconds and when an arm's state changes."""

    def __init__(
        self, stream: TextIO | None = None, runs: Runs = "open", now: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._now = now
        self._start = now()
        self._last_line = -LINE_EVERY_S
        self._states: dict[str, tuple[str, int]] = {}
        self._course = Course(runs)

    def event(self, text: str) -> None:
        self._write(clean_lines(text))

    def show(self, view: ArmView) -> None:
        now = self._now()
        self._course.see(view, now)
        if not view.total:
            return  # starting and ready are told as events
        state = (view.state, view.pair)
        changed = self._states.get(view.name) != state
        self._states[view.name] = state
        if (changed and view.state != "running") or now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self._write("; ".join(part for part in (line_of(view), self._course.told(now)) if part))

    def close(self) -> None:
        pass

    def _write(self, text: str) -> None:
        elapsed = self._now() - self._start
        self._stream.write(f"[{elapsed:6.1f}s] {text}\n")
        self._stream.flush()


class Drawn:
    """For terminals: a small table drawn in place, events above it."""

    def __init__(self, console: Console, runs: Runs = "open", now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._course = Course(runs)
        self._now = now
        self._start = now()
        self._last_draw = -DRAW_EVERY_S
        self._drawn: list[Text] = []
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def event(self, text: str) -> None:
        self._refold()
        self._console.print(Group(*map(Prose, clean_lines(text).split("\n"))))

    def show(self, view: ArmView) -> None:
        old, now = self._course.views.get(view.name), self._now()
        self._course.see(view, now)
        if old is not None and old.state == view.state and now - self._last_draw < DRAW_EVERY_S:
            return
        self._last_draw = now
        self._refold()
        told = [f"{clock(now - self._start)} elapsed" if self._course.begun else "", self._course.told(now)]
        title = Text(", ".join(part for part in told if part) or "the servers start")
        title.append("   latencies: P90 so far, ms" if self._course.begun else "", style="dim")
        table = live_table(list(self._course.views.values()), self._console.width)
        title.truncate(self._console.width, overflow="ellipsis")
        self._drawn = [title, *table]
        self._live.update(Text("\n").join(self._drawn), refresh=True)

    def close(self) -> None:
        self._refold()
        self._live.stop()

    def _refold(self) -> None:
        """A terminal that was made narrower has folded the lines of the last drawing: more are to be taken back than
        were drawn. rich does not know, so it is told."""
        width = self._console.width
        shape = self._live._live_render._shape
        if shape is not None and width < shape[0]:
            rows = sum(max(1, -(-line.cell_len // width)) for line in self._drawn)
            self._live._live_render._shape = (width, rows)


def make_progress(*, quiet: bool, color: bool, runs: Runs = "open") -> Progress:
    """The face that fits: silent, drawn on a terminal that can move its cursor, lines elsewhere."""
    if quiet:
        return Silent()
    console = console_of(color=color, stderr=True)
    # FORCE_COLOR has rich take a log for a terminal; a cursor it has not.
    drawable = console.file.isatty() and console.is_interactive and not console.is_dumb_terminal
    return Drawn(console, runs) if drawable else Lines(runs=runs)


def line_of(view: ArmView) -> str:
    """``"disaggregated pair 2/6 running 12/70, 0 failed, P90 TTFT 310 ms, TPOT 12.1 ms, gap 25.0 ms"``."""
    name = clean(view.name)
    if not view.total:
        return f"{name} {view.state}"
    text = f"{name} pair {view.pair + 1}/{view.pairs} {view.state} {view.done}/{view.total}"
    if view.failed:
        text += f", {view.failed} failed"
    seen = [("TTFT", view.ttft_p90_ms), ("TPOT", view.tpot_p90_ms), ("gap", view.gap_p90_ms)]
    parts = [f"{what} {value:.3g} ms" for what, value in seen if value is not None]
    return f"{text}, P90 {', '.join(parts)}" if parts else text
