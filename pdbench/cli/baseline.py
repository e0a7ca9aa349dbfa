"""``pdbench baseline accept RUN --reason TEXT`` and ``pdbench baseline show``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pdbench.cli.echo import note, print_json


@click.group("baseline")
def command() -> None:
    """Stored references: accept a run as one, or show them."""


@command.command("accept")
@click.argument("run", metavar="RUN")
@click.option("--reason", metavar="TEXT", default="", help="Why; kept in the file.")
@click.option("--arm", metavar="ARM", help="Which arm of the run, where it has several.")
def accept(run: str, reason: str, arm: str | None) -> None:
    """Make a stored run the baseline of its workload on its machine."""
    from pdbench import baseline
    from pdbench.store import read_run

    folder = Path(run) if Path(run).exists() else Path("results") / run
    path = baseline.accept(read_run(folder), reason=reason, now=datetime.now(UTC), arm=arm)
    note(f"accepted: {path}")


@command.command("show")
@click.argument("workload", required=False)
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
def show(workload: str | None, as_json: bool) -> None:
    """List the stored baselines, of one WORKLOAD or all; one that was edited by hand is refused."""
    from pdbench import baseline

    found = [baseline.load(path) for path in baseline.stored(workload=workload)]
    if as_json:
        print_json([{"path": str(one.path), **one.document} for one in found])
        return
    if not found:
        note("no baseline; pdbench baseline accept RUN --reason TEXT makes one")
    for one in found:
        click.echo(_line(one.path, one.document))


def _line(path: Path, document: dict[str, Any]) -> str:
    head = f"{path}: {document['arm']} on {document['workload']['name']}, accepted {document['accepted']}"
    return f"{head}\n  {document['reason']}"
