"""A sweep as a table: one row a candidate, the chosen one marked by a star, then the sentence."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdbench.report.search import notes_of
from pdbench.sentence import percent

Document = dict[str, Any]


def print_tune(document: Document, console: Console) -> None:
    """The table, the rule, notes, where the file lies, the sentence."""
    console.print(sweep_table(document))
    console.print()
    console.print(f"* chosen: {document['rule']}.", soft_wrap=True)
    for line in notes_of(document):
        console.print(Text(line, style="yellow"))
    if document["file"] is not None:
        kept = "" if document["comments_kept"] else " (written afresh: its comments could not be kept)"
        console.print(f"written: {document['file']}{kept}", soft_wrap=True)
    console.print()
    console.print(Text(document["sentence"], style="bold"))


def sweep_table(document: Document) -> Table:
    """What was tried, and what came of it."""
    rates = ", ".join(f"{rate:.3g}" for rate in document["rates"])
    title = f"{document['backend']}: {document['workload']['name']} at {rates} req/s, seed {document['seed']}"
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)
    table.add_column("")
    for label in document["current"]:
        table.add_column(label, justify="right")
    for name in ("joint attainment", "TTFT P90 ms", "runs", "INVALID"):
        table.add_column(name, justify="right")
    for arm in document["arms"].values():
        ttft = "inf" if arm["ttft_p90_ms"] is None else f"{arm['ttft_p90_ms']:.0f}"
        outcome = [percent(arm["joint"]), ttft] if arm["used"] else ["INVALID", ""]
        numbers = [str(value) for value in arm["values"].values()]
        table.add_row(
            "*" if arm["chosen"] else "", *numbers, *outcome, str(arm["used"]), str(arm["left_out"]),
            style="bold" if arm["chosen"] else "",
        )  # fmt: skip
    return table
