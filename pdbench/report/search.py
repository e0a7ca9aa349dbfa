"""A search as a table: one column an arm, then attainment by rate, what each arm stopped for, and the sentence.

A rate's cell is the mean over its VALID runs with their number behind it: ``93 (3)``. Where a rate was tried and no
run of it was VALID, it says so.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdbench.sentence import percent

Document = dict[str, Any]


def print_search(document: Document, console: Console) -> None:
    """Goodput, attainment by rate, ratios, notes, the limit that turns the order over, the sentence."""
    console.print(goodput_table(document))
    console.print()
    console.print(rate_table(document))
    console.print()
    for name, arm in document["arms"].items():
        console.print(f"{name}: stopped: {arm['stop']}")
    for line in notes_of(document):
        console.print(Text(line, style="yellow"))
    if (found := document.get("surface")) is not None:
        console.print()
        console.print(f"At {found['rate']:.3g} req/s, {found['pairs']} plan(s) replayed by all: {found['sentence']}")
        console.print(f"All limits: {found['command']}", soft_wrap=True)
    console.print()
    console.print(Text(document["sentence"], style="bold"))


def goodput_table(document: Document) -> Table:
    """Goodput of every arm, whole and by device, with its interval and what it rests on."""
    arms: dict[str, Document] = document["arms"]
    title = f"goodput, req/s: {percent(document['share'])} of the requests keep {', '.join(document['slo'])}"
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)
    table.add_column("")
    for name in arms:
        table.add_column(name, justify="right")
    found = [arm["goodput"] for arm in arms.values()]
    table.add_row("devices", *[str(arm["devices"]) for arm in arms.values()])
    table.add_row("goodput", *[_rate(one) for one in found], style="bold")
    table.add_row("  95 % interval", *[_interval(one and one["interval"]) for one in found])
    table.add_row("per device", *[_rate(one, per_device=True) for one in found], style="bold")
    table.add_row("  95 % interval", *[_interval(one and one["per_device"]["interval"]) for one in found])
    if document["certify"]:
        table.add_row("certified per device", *[_number(one and one["per_device"]["claimed"]) for one in found])
    table.add_row("half-width", *[_half(one) for one in found])
    table.add_row("runs used", *[str(arm["used"]) for arm in arms.values()])
    table.add_row("INVALID, left out", *[str(arm["left_out"]) for arm in arms.values()])
    return table


def rate_table(document: Document) -> Table:
    """Joint attainment in per cent by rate, with the number of runs."""
    arms: dict[str, Document] = document["arms"]
    table = Table(pad_edge=False, box=None, title="joint attainment in % (runs)", title_justify="left")
    table.add_column("req/s", justify="right")
    for name in arms:
        table.add_column(name, justify="right")
    for rate in sorted({run["rate"] for arm in arms.values() for run in arm["runs"]}):
        table.add_row(f"{rate:.3g}", *[_cell(arm, rate) for arm in arms.values()])
    return table


def notes_of(document: Document) -> list[str]:
    """Why it is INVALID, then warnings."""
    lines = []
    for reason in document["validity"]["reasons"]:
        lines += [f"INVALID: {reason['message']}", f"  {reason['remedy']}"]
    return lines + [f"warning: {text}" for text in document.get("warnings", [])]


def _cell(arm: Document, rate: float) -> str:
    runs = [run for run in arm["runs"] if run["rate"] == rate]
    used = [run["joint"] for run in runs if run["used"]]
    if not used:
        return "INVALID" if runs else ""
    return f"{100 * sum(used) / len(used):.0f} ({len(used)})"


def _rate(found: Document | None, *, per_device: bool = False) -> str:
    if found is None:
        return "n/a"
    sign = {"above": "> ", "below": "< "}.get(found["where"], "")
    return f"{sign}{(found['per_device'] if per_device else found)['rate']:.3g}"


def _interval(ends: list[float | None] | None) -> str:
    if not ends or ends == [None, None]:
        return "not resolved"
    low, high = ("..." if end is None else f"{end:.3g}" for end in ends)
    return f"{low} to {high}"


def _half(found: Document | None) -> str:
    half = found and found["half_width"]
    return f"{100 * half:.1f} %" if half else "not resolved"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3g}"
