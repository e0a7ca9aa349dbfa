"""The live view's table: one row an arm, whatever the width. What finds no room is left out, the least needed first.

    arm                 pair  state     requests  TTFT  TPOT   gap  in time
    colocated-chunked    2/6  complete     70/70   153  7.27  18.7    100 %  ━━━━━━────────
    disaggregated        2/6  running      12/70   135  5.89  12.9     97 %  ━━━━──────────

``in time``: of the requests that ended, those within the limits that can be judged before the end (``ArmView``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from pdbench.live import ArmView
from pdbench.report.clean import clean
from pdbench.sentence import percent

_GAP = 2
_NAME = (8, 28)  # the least and the most cells of a name
_BAR = (6, 24)
_STATES = {"running": "cyan", "complete": "green", "died": "red", "engine_died": "red", "interrupted": "yellow"}


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


@dataclass(frozen=True, slots=True)
class _Column:
    """``rank``: the higher, the sooner left out. ``always``: also where no arm has anything to show."""

    head: str
    rank: int
    shown: Callable[[ArmView], str]
    left: bool = False
    always: bool = True


_COLUMNS = (
    _Column("pair", 5, lambda view: f"{view.pair + 1}/{view.pairs}" if view.total else ""),
    _Column("state", 2, lambda view: clean(view.state), left=True),
    _Column("requests", 0, lambda view: f"{view.done}/{view.total}" if view.total else ""),
    _Column("failed", 1, lambda view: str(view.failed) if view.failed else "", always=False),
    _Column("TTFT", 3, lambda view: _ms(view.ttft_p90_ms)),
    _Column("TPOT", 4, lambda view: _ms(view.tpot_p90_ms)),
    _Column("gap", 6, lambda view: _ms(view.gap_p90_ms)),
    _Column("in time", 7, lambda view: "" if view.in_limits is None else percent(view.in_limits), always=False),
)


def live_table(views: Sequence[ArmView], width: int) -> list[Text]:
    """A head and a line an arm, none of them wider than ``width``."""
    columns = [one for one in _COLUMNS if one.always or any(map(one.shown, views))]
    widths = {one.head: max([len(one.head), *(cell_len(one.shown(view)) for view in views)]) for one in columns}
    names = [clean(view.name) for view in views]
    while columns and _NAME[0] + sum(_GAP + widths[one.head] for one in columns) > width:
        columns.remove(max(columns, key=lambda one: one.rank))
    room = width - sum(_GAP + widths[one.head] for one in columns)
    name = min(max([3, *map(cell_len, names)]), room, _NAME[1])
    bar = min(room - name - _GAP, _BAR[1])
    lines = [_line("arm", [(one, one.head) for one in columns], name, widths, "dim")]
    for view, text in zip(views, names, strict=True):
        line = _line(text, [(one, one.shown(view)) for one in columns], name, widths, "")
        if bar >= _BAR[0] and view.total:
            line.append_text(_bar(view, bar))
        line.rstrip()
        lines.append(line)
    return lines


def _line(name: str, cells: Sequence[tuple[_Column, str]], width: int, widths: dict[str, int], style: str) -> Text:
    line = Text(_fitted(name, width), style=style)
    for column, text in cells:
        room = " " * (widths[column.head] - cell_len(text))
        line.append(" " * _GAP + ("" if column.left else room))
        line.append(text, style=_STATES.get(text, "") if column.head == "state" else "")
        line.append(room if column.left else "")
    return line


def _fitted(text: str, width: int) -> str:
    """Exactly as wide; what does not fit ends in dots."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 2) + ".."


def _bar(view: ArmView, width: int) -> Text:
    """How far the arm is with all of its pairs."""
    share = min((view.pair + view.done / view.total) / view.pairs, 1.0) if view.total else 0.0
    full = round(share * width)
    bar = Text(" " * _GAP)
    bar.append("━" * full, style="green" if full == width else "cyan")
    return bar.append("─" * (width - full), style="dim")
