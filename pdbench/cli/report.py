"""``pdbench report RUN``: a stored run again, as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pdbench.cli.echo import print_json, wants_color


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How to show it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--no-color", is_flag=True, envvar="PDBENCH_NO_COLOR", help="No colours (also: NO_COLOR).")
def command(runs: tuple[str, ...], format_: str, as_json: bool, no_color: bool) -> None:
    """Show stored runs: RUN is a directory, or the name of one in results/."""
    documents = [load_document(text) for text in runs]
    if as_json or format_ == "json":
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    from rich.console import Console

    from pdbench.report.gate import print_calibration, print_gate
    from pdbench.report.search import print_search
    from pdbench.report.text import print_document
    from pdbench.report.tune import print_tune

    printers = {"search": print_search, "tune": print_tune, "gate": print_gate, "calibration": print_calibration}
    console = Console(no_color=not wants_color(no_color), highlight=False)
    for document in documents:
        printers.get(document.get("kind", ""), print_document)(document, console)


def load_document(text: str) -> dict[str, Any]:
    """The summary of a stored run. Raises ``UsageError``."""
    from pdbench.errors import UsageError

    folder = Path(text) if Path(text).exists() else Path("results") / text
    path = folder if folder.is_file() else folder / "summary.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"no stored run: {error.strerror}", where=str(path), remedy="give the directory that a run printed"
        ) from error
    except ValueError as error:
        raise UsageError(f"not a summary: {error}", where=str(path)) from error
    if not isinstance(document, dict) or document.get("schema_version") != 1:
        raise UsageError("not a summary of schema version 1", where=str(path))
    return document
