"""The surface as a table: one for each head, limits along both edges, ``base/head`` in per cent in each cell.

A cell is coloured by who leads, and says so without colour too: the numbers stand side by side. ``*`` marks
the workload's own limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pdbench.report.clean import cleaned
from pdbench.report.grid import Blocks, Grid, Prose

Document = dict[str, Any]
_WORDS = {"ttft": "TTFT", "tpot": "TPOT", "worst_gap": "worst gap"}


def print_surface(document: Document, console: Console, *, every: bool = False) -> None:
    """One slice (``every``: all of them) for each head, the flips, then the sentence."""
    document = cleaned(document)
    for piece in shown_slices(document, every=every):
        for head in piece["difference"] or [None]:
            console.print(Text(slice_title(document, piece, head), style="bold"))
            console.print(slice_table(document, piece, head))
            console.print()
    console.print("Rows and columns are limits in ms; * is the SLO's own.")
    console.print()
    for reason in document["validity"]["reasons"]:
        console.print(Text(f"INVALID: {reason['message']}\n  {reason['remedy']}", style="yellow"))
    for item in document["comparisons"]:
        if item["flips"]:
            console.print(Text(f"{item['base']} / {item['head']}: where another would lead", style="bold"))
            console.print(flip_table(item))
            console.print()
    console.print(Prose(document["sentence"], style="bold"))
    console.print("Shares are of requests pooled over the runs: a map, not a test.")


def shown_slices(document: Document, *, every: bool) -> list[Document]:
    """All slices, or the one of TTFT against the worst gap (TPOT where the SLO has only that)."""
    pieces: list[Document] = document["slices"]
    limits = document["limits_ms"]
    columns = "tpot" if limits["worst_gap"] is None and limits["tpot"] is not None else "worst_gap"
    return pieces if every else [p for p in pieces if (p["rows"], p["columns"]) == ("ttft", columns)]


def slice_title(document: Document, piece: Document, head: str | None) -> str:
    """``a / b: % of requests in time; TTFT down, worst gap across, TPOT <= 40 ms``."""
    fixed = piece["fixed"]
    limit = "unlimited" if fixed["limit_ms"] is None else f"<= {fixed['limit_ms']:g} ms"
    who = f"{document['base']} / {head}" if head else document["base"]
    return (
        f"{who}: % of requests that keep the SLO,\n"
        f"{_WORDS[piece['rows']]} down, {_WORDS[piece['columns']]} across, {_WORDS[fixed['metric']]} {limit}"
    )


def slice_table(document: Document, piece: Document, head: str | None) -> Blocks[int]:
    """One slice for one head (``None``: the base alone)."""
    rows, columns = piece["rows"], piece["columns"]
    limits, values = document["limits_ms"], document["grid_ms"]

    def build(shown: Sequence[int]) -> Grid:
        grid = Grid("", [_limit(values[columns][j], limits[columns]) for j in shown], gap=1)
        for i, value in enumerate(values[rows]):
            grid.add(_limit(value, limits[rows]), [_cell(document, piece, head, i, j) for j in shown])
        return grid

    return Blocks(range(len(values[columns])), build)


def _cell(document: Document, piece: Document, head: str | None, i: int, j: int) -> Text:
    ours = piece["joint"][document["base"]][i][j]
    if head is None:
        return Text(f"{100 * ours:.0f}")
    difference = piece["difference"][head][i][j]
    style = "green" if difference < -document["margin"] else "red" if difference > document["margin"] else ""
    return Text(f"{100 * ours:.0f}/{100 * piece['joint'][head][i][j]:.0f}", style=style)


def flip_table(item: Document) -> Blocks[str]:
    """At which limits another arm would lead, nearest first."""
    base, head = item["base"], item["head"]

    def build(shown: Sequence[str]) -> Grid:
        grid = Grid("limit", shown)
        for flip in item["flips"]:
            figures = {
                "SLO": "none" if flip["from_ms"] is None else f"{flip['from_ms']:g} ms",
                "would be": f"{flip['to_ms']:.4g} ms",
                "joint": f"{100 * flip['joint'][base]:.0f}/{100 * flip['joint'][head]:.0f}",
                "leads": flip["leads"],
            }
            grid.add(_WORDS[flip["metric"]], [figures[name] for name in shown])
        return grid

    return Blocks(("SLO", "would be", "joint", "leads"), build)


def _limit(value: float | None, own: float | None) -> str:
    mark = "*" if value == own else ""
    return f"none{mark}" if value is None else f"{value:.4g}{mark}"
