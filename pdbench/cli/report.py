"""``pdbench report RUN...``: stored runs again, as a table, a page, a trace or data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.echo import note, print_json, wants_color

if TYPE_CHECKING:
    from pdbench.stored import StoredRun

FORMATS = ("text", "html", "md", "csv", "junit", "json", "perfetto")
"""The keys of ``report.formats.FORMATS``, which is too heavy to be imported for a ``--help``."""


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True, help="How to show it."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Where to write it (default: text, json, md and junit on stdout, the others into the run's folder).",
)  # fmt: skip
@click.option(
    "--price-per-device-hour", type=float, metavar="MONEY", envvar="PDBENCH_PRICE_PER_DEVICE_HOUR",
    help="What one device costs an hour, for the cost of a good request (html).",
)  # fmt: skip
@click.option("--no-color", is_flag=True, envvar="PDBENCH_NO_COLOR", help="No colours (also: NO_COLOR).")
def command(
    runs: tuple[str, ...],
    format_: str,
    as_json: bool,
    output: Path | None,
    price_per_device_hour: float | None,
    no_color: bool,
) -> None:
    """Show stored runs: RUN is a directory, or the name of one in results/.

    \b
    pdbench report RUN                          the table that the run printed
    pdbench report RUN --format html            one page with every chart; opens offline
    pdbench report RUN SEARCH_RUN --format html     with attainment against rate
    pdbench report RUN --format perfetto        a timeline for ui.perfetto.dev
    """
    from pdbench.errors import UsageError

    if price_per_device_hour is not None and not 0 < price_per_device_hour < float("inf"):
        raise UsageError("a price is above 0", where="--price-per-device-hour", remedy="e.g. 2.50")
    from pdbench.stored import open_run

    show([open_run(text) for text in runs], "json" if as_json else format_, output, price_per_device_hour, no_color)


def show(runs: list[StoredRun], format_: str, output: Path | None, price: float | None, no_color: bool) -> None:
    """Export and put it where it belongs. Raises ``UsageError``."""
    from pdbench.report.formats import FORMATS as KNOWN
    from pdbench.report.formats import Asked, print_runs, write_files

    if output is None and format_ == "text":
        from pdbench.report.terminal import console_of

        print_runs(runs, console_of(color=wants_color(no_color)))
        return
    if output is None and format_ == "json":
        print_json(runs[0].document if len(runs) == 1 else [run.document for run in runs])
        return
    files = KNOWN[format_].export(runs, Asked(price))
    if output is None and KNOWN[format_].shown:
        for text in files.values():
            click.echo(text, nl=not text.endswith("\n"))
        return
    for path in write_files(files, runs, output):
        note(f"written: {path}")


_PAGED = ("run", "compare", "search", "gate", "simulate")


def keep_page(outcome: Any, values: dict[str, Any]) -> None:
    """Put ``report.html`` beside a finished run. A page that cannot be made costs a line on stderr, never the run."""
    if values.get("no_report") or outcome.document.get("kind") not in _PAGED:
        return
    try:
        from pdbench.report.html.page import write_report

        path = write_report(outcome.run_dir)
    except Exception as error:  # whatever it is, the numbers are on disk and the verdict is printed
        note(
            f"no report.html: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        )
        return
    note(f"report: {path}")
