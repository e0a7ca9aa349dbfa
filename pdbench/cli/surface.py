"""``pdbench surface RUN ...``: attainment over all SLO limits, from stored records."""

from __future__ import annotations

from pathlib import Path

import click

from pdbench.cli.echo import print_json, wants_color


@click.command("surface")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--slo", multiple=True, metavar="OBJECTIVE", help='Instead of the run\'s, e.g. "ttft p90 <= 400ms".')
@click.option("--base", metavar="ARM", help="What the others are compared to (default: the run's base).")
@click.option(
    "--limits", multiple=True, metavar="METRIC:LIMITS",
    help="Limits to look at, e.g. ttft:100ms,200ms,1s; for ttft, tpot or worst_gap.",
)  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Show every pair of limits, not only TTFT against gaps.")
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
@click.option("--no-color", is_flag=True, envvar="PDBENCH_NO_COLOR", help="No colours (also: NO_COLOR).")
def command(
    runs: tuple[str, ...],
    slo: tuple[str, ...],
    base: str | None,
    limits: tuple[str, ...],
    every: bool,
    as_json: bool,
    no_color: bool,
) -> int:
    """Judge stored runs under all limits at once: RUN is a directory, or the name of one in results/.

    Nothing is run. Several RUNs must have replayed the same plans.
    """
    from pdbench.store import read_run
    from pdbench.surface import exit_code, parse_grid, surface_document

    grid = parse_grid(limits)
    folders = [Path(text) if Path(text).exists() else Path("results") / text for text in runs]
    document = surface_document([read_run(folder) for folder in folders], slo=slo, base=base, grid=grid)
    if as_json:
        print_json(document)
    else:
        from pdbench.report.surface import print_surface
        from pdbench.report.terminal import console_of

        print_surface(document, console_of(color=wants_color(no_color)), every=every)
    return exit_code(document)
