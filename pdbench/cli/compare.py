"""``pdbench compare [BACKEND|NAME=URL ...]``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.echo import note, print_json, print_yaml, wants_color
from pdbench.cli.options import (
    Command,
    fail_on_option,
    output_options,
    overrides_of,
    run_options,
    workload_options,
)

if TYPE_CHECKING:
    from pdbench.compare import Outcome
    from pdbench.settings import Settings
    from pdbench.target.backend import Backend
    from pdbench.workload.spec import Workload


@click.command("compare", cls=Command)
@click.argument("backends", nargs=-1, metavar="[BACKEND|NAME=URL]...")
@click.option(
    "--pairs", type=click.IntRange(min=1), default=6, show_default=True, envvar="PDBENCH_PAIRS",
    help="Runs of every arm.",
)  # fmt: skip
@click.option("--base", metavar="ARM", envvar="PDBENCH_BASE", help="What the others are compared to.")
@workload_options
@run_options
@fail_on_option("slo", "worse")
@output_options
def command(backends: tuple[str, ...], base: str | None, **values: Any) -> int:
    """Compare backends under one load, pair by pair, and say which is better.

    Without BACKENDs: colocated-chunked (the base), colocated and disaggregated, on workload chat.
    """
    from pdbench.errors import UsageError
    from pdbench.settings import load_workload
    from pdbench.target.arms import DEFAULT_ARMS, base_of
    from pdbench.target.backend import resolve_backend

    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    arms = [resolve_backend(text) for text in backends or DEFAULT_ARMS]
    if len(arms) < 2:
        raise UsageError("a comparison needs two arms or more", remedy="for one backend use pdbench run")
    base = base_of(arms, base)
    settings = settings_of(values, pairs=values["pairs"])
    if values["print_config"]:
        print_yaml(config_of(workload, settings, arms) | {"base": base})
        return 0
    progress = make_progress_of(values)
    progress.event("loading")
    from pdbench.compare import compare  # brings pandas and scipy: not before the input is known to be good

    try:
        outcome = compare(arms, workload, settings, progress, base=base)
    finally:
        progress.close()
    return show(outcome, values)


def settings_of(values: dict[str, Any], *, pairs: int) -> Settings:
    """The options that are not about the workload."""
    from pathlib import Path

    from pdbench.settings import Settings

    return Settings(
        out_dir=Path(values["output"]),
        pairs=pairs,
        seed=values["seed"],
        clock=values["clock"],
        max_concurrency=values["max_concurrency"],
        fail_on=frozenset(values["fail_on"]),
        argv=tuple(sys.argv),
    )


def config_of(workload: Workload, settings: Settings, arms: list[Backend]) -> dict[str, Any]:
    """What ``--print-config`` shows."""
    from pdbench.settings import workload_data

    return {
        "workload": workload_data(workload),
        "pairs": settings.pairs,
        "seed": settings.seed,
        "clock": settings.clock,
        "max_concurrency": settings.max_concurrency,
        "output": str(settings.out_dir),
        "fail_on": sorted(settings.fail_on),
        "arms": {arm.name: arm.data for arm in arms},
    }


def make_progress_of(values: dict[str, Any]) -> Any:
    from pdbench.report.progress import make_progress

    return make_progress(quiet=values["quiet"], color=wants_color(values["no_color"]))


def show(outcome: Outcome, values: dict[str, Any]) -> int:
    """The document on stdout, as JSON or as a table; where it lies, on stderr."""
    if values["as_json"]:
        print_json(outcome.document)
    else:
        from rich.console import Console

        from pdbench.report.text import print_document

        print_document(outcome.document, Console(no_color=not wants_color(values["no_color"]), highlight=False))
    note(f"results: {outcome.run_dir}")
    return outcome.exit_code
