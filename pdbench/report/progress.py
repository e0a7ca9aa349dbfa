"""What is going on, on stderr, from the first second: what starts, how far each arm is, live P90s.

Three faces of one small protocol: a table redrawn in place on a terminal (at most four times a second, drawn
only when news arrive: no thread, since gevent patches threads), a line an event and a line every ten seconds
elsewhere (logs of CI), and silence for ``-q``.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pdbench.live import ArmView, Progress

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

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._start = time.monotonic()
        self._last_line = -LINE_EVERY_S
        self._states: dict[str, tuple[str, int]] = {}

    def event(self, text: str) -> None:
        self._write(text)

    def show(self, view: ArmView) -> None:
        if not view.total:
            return  # starting and ready are told as events
        now = time.monotonic()
        state = (view.state, view.pair)
        changed = self._states.get(view.name) != state
        self._states[view.name] = state
        if (changed and view.state != "running") or now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self._write(line_of(view))

    def close(self) -> None:
        pass

    def _write(self, text: str) -> None:
        elapsed = time.monotonic() - self._start
        self._stream.write(f"[{elapsed:6.1f}s] {text}\n")
        self._stream.flush()


class Drawn:
    """For terminals: a small table drawn in place, events above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._views: dict[str, ArmView] = {}
        self._last_draw = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def event(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def show(self, view: ArmView) -> None:
        old = self._views.get(view.name)
        self._views[view.name] = view
        now = time.monotonic()
        if old is not None and old.state == view.state and now - self._last_draw < DRAW_EVERY_S:
            return
        self._last_draw = now
        self._live.update(_table(list(self._views.values())), refresh=True)

    def close(self) -> None:
        self._live.stop()


def make_progress(*, quiet: bool, color: bool) -> Progress:
    """The face that fits: silent, drawn on a terminal, lines elsewhere."""
    if quiet:
        return Silent()
    console = Console(stderr=True, no_color=not color)
    return Drawn(console) if console.is_terminal else Lines()


def line_of(view: ArmView) -> str:
    """``"disaggregated pair 2/6 running 12/70, 0 failed, P90 TTFT 310 ms, TPOT 12.1 ms, gap 25.0 ms"``."""
    if not view.total:
        return f"{view.name} {view.state}"
    text = f"{view.name} pair {view.pair + 1}/{view.pairs} {view.state} {view.done}/{view.total}"
    if view.failed:
        text += f", {view.failed} failed"
    seen = [("TTFT", view.ttft_p90_ms), ("TPOT", view.tpot_p90_ms), ("gap", view.gap_p90_ms)]
    parts = [f"{name} {value:.3g} ms" for name, value in seen if value is not None]
    return f"{text}, P90 {', '.join(parts)}" if parts else text


def _table(views: list[ArmView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("arm", "pair", "state", "requests", "failed", "TTFT", "TPOT", "gap (P90 ms)"):
        table.add_column(head, justify="left" if head in ("arm", "state") else "right")
    for view in views:
        table.add_row(
            view.name,
            f"{view.pair + 1}/{view.pairs}" if view.total else "",
            view.state,
            f"{view.done}/{view.total}" if view.total else "",
            str(view.failed),
            *(
                "" if value is None else f"{value:.3g}"
                for value in (view.ttft_p90_ms, view.tpot_p90_ms, view.gap_p90_ms)
            ),
        )
    return table
