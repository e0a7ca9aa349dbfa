"""A search as a table: one column an arm, then attainment by rate, what each arm stopped for, and the sentence.

A rate's cell is the mean over its VALID runs with their number behind it: ``93 (3)``. Where a rate was tried and no
run of it was VALID, it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pdbench.report.clean import cleaned
from pdbench.report.grid import Blocks, Grid, Prose
from pdbench.sentence import percent

Document = dict[str, Any]


def print_search(document: Document, console: Console) -> None:
    """Goodput, attainment by rate, ratios, notes, the limit that turns the order over, the sentence."""
    document = cleaned(document)
    console.print(goodput_table(document))
    console.print()
    console.print(rate_table(document))
    console.print()
    for name, arm in document["arms"].items():
        console.print(Text(f"{name}: stopped: {arm['stop']}"))
    for text in notes_of(document):
        console.print(Prose(text, style="yellow"))
    if (found := document.get("surface")) is not None:
        console.print()
        console.print(
            Text(f"At {found['rate']:.3g} req/s, {found['pairs']} plan(s) replayed by all: {found['sentence']}")
        )
        console.print(Text(f"All limits: {found['command']}"), soft_wrap=True)
    console.print()
    console.print(Prose(document["sentence"], style="bold"))


def goodput_table(document: Document) -> Blocks[str]:
    """Goodput of every arm, whole and by device, with its interval and what it rests on."""
    title = f"goodput, req/s: {percent(document['share'])} of the requests keep {', '.join(document['slo'])}"
    return Blocks(list(document["arms"]), lambda names: _goodput(document, names), Text(title, style="bold"))


def _goodput(document: Document, names: Sequence[str]) -> Grid:
    arms = [document["arms"][name] for name in names]
    found = [arm["goodput"] for arm in arms]
    grid = Grid("", names)
    grid.add("devices", [str(arm["devices"]) for arm in arms])
    grid.add("goodput", [_rate(one) for one in found], style="bold")
    grid.add("  95 % interval", [_interval(one and one["interval"]) for one in found])
    grid.add("per device", [_rate(one, per_device=True) for one in found], style="bold")
    grid.add("  95 % interval", [_interval(one and one["per_device"]["interval"]) for one in found])
    if document["certify"]:
        grid.add("certified per device", [_number(one and one["per_device"]["claimed"]) for one in found])
    grid.add("half-width", [_half(one) for one in found])
    grid.add("runs used", [str(arm["used"]) for arm in arms])
    grid.add("INVALID, left out", [str(arm["left_out"]) for arm in arms])
    return grid


def rate_table(document: Document) -> Blocks[str]:
    """Joint attainment in per cent by rate, with the number of runs."""
    return Blocks(
        list(document["arms"]),
        lambda names: _rates(document, names),
        Text("joint attainment in % (runs)", style="bold"),
    )


def _rates(document: Document, names: Sequence[str]) -> Grid:
    grid = Grid("req/s", names)
    for rate in sorted({run["rate"] for arm in document["arms"].values() for run in arm["runs"]}):
        grid.add(f"{rate:.3g}", [_cell(document["arms"][name], rate) for name in names])
    return grid


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
