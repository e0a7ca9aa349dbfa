"""A sweep as a table: one row a candidate, the chosen one marked by a star, then the sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pdbench.report.clean import cleaned
from pdbench.report.grid import Blocks, Grid, Prose
from pdbench.report.search import notes_of
from pdbench.sentence import percent

Document = dict[str, Any]
_OUTCOME = ("joint attainment", "TTFT P90 ms", "runs", "INVALID")


def print_tune(document: Document, console: Console) -> None:
    """The table, the rule, notes, where the file lies, the sentence."""
    document = cleaned(document)
    console.print(sweep_table(document))
    console.print()
    console.print(Text(f"* chosen: {document['rule']}."), soft_wrap=True)
    for line in notes_of(document):
        console.print(Prose(line, style="yellow"))
    if document["file"] is not None:
        kept = "" if document["comments_kept"] else " (written afresh: its comments could not be kept)"
        console.print(Text(f"written: {document['file']}{kept}"), soft_wrap=True)
    console.print()
    console.print(Prose(document["sentence"], style="bold"))


def sweep_table(document: Document) -> Blocks[str]:
    """What was tried, and what came of it."""
    rates = ", ".join(f"{rate:.3g}" for rate in document["rates"])
    title = f"{document['backend']}: {document['workload']['name']} at {rates} req/s, seed {document['seed']}"
    columns = [*document["current"], *_OUTCOME]
    return Blocks(columns, lambda names: _sweep(document, names), Text(title, style="bold"))


def _sweep(document: Document, names: Sequence[str]) -> Grid:
    grid = Grid("", names)
    for number, arm in enumerate(document["arms"].values(), 1):
        figures = {**{name: str(value) for name, value in arm["values"].items()}, **_outcome(arm)}
        label, style = (f"{number} *", "bold") if arm["chosen"] else (str(number), "")
        grid.add(label, [figures.get(name, "") for name in names], style=style)
    return grid


def _outcome(arm: Document) -> dict[str, str]:
    ttft = "inf" if arm["ttft_p90_ms"] is None else f"{arm['ttft_p90_ms']:.0f}"
    found = [percent(arm["joint"]), ttft] if arm["used"] else ["INVALID", ""]
    return dict(zip(_OUTCOME, [*found, str(arm["used"]), str(arm["left_out"])], strict=True))
