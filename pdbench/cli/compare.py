"""``pdbench compare [BACKEND|NAME=URL ...]``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.echo import note, print_json, print_yaml, wants_color
from pdbench.cli.options import (
    Command,
    comparison_options,
    fail_on_option,
    fleet_of,
    output_options,
    overrides_of,
    run_options,
    workload_options,
)
from pdbench.cli.report import keep_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from pdbench.compare import Outcome
    from pdbench.report.course import Runs
    from pdbench.settings import Settings
    from pdbench.target.backend import Backend
    from pdbench.workload.spec import Workload

    Printer = Callable[[dict[str, Any], Console], None]


MOST_PAIRS = 16
"""The last of the planned looks (``stats.sequential``), which is too heavy to be asked here."""


@click.command("compare", cls=Command)
@click.argument("backends", nargs=-1, metavar="[BACKEND|NAME=URL]...")
@comparison_options
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
    settings = comparison_settings(values)
    if values["print_config"]:
        print_yaml(config_of(workload, settings, arms) | _declared(settings, base))
        return 0
    progress = make_progress_of(values, "all" if settings.budget is None else "at most")
    progress.event("loading")
    from pdbench.compare import compare  # brings pandas and scipy: not before the input is known to be good

    try:
        outcome = compare(arms, workload, settings, progress, base=base)
    finally:
        progress.close()
    return show(outcome, values)


def comparison_settings(values: dict[str, Any]) -> Settings:
    """``settings_of`` with what only a comparison has. Raises ``UsageError``."""
    from dataclasses import replace

    from pdbench.errors import UsageError
    from pdbench.settings import Budget

    auto, budget = values["pairs"] == "auto", values["budget"]
    if budget is not None and not auto:
        raise UsageError("needs --pairs auto", where="--budget", remedy="a fixed number of pairs has no budget")
    if values["saturate_concurrency"] is not None and not values["saturate"]:
        raise UsageError("needs --saturate", where="--saturate-concurrency")
    return replace(
        settings_of(values, pairs=MOST_PAIRS if auto else int(values["pairs"])),
        primary=_primary(values["primary"]),
        unfair_ok=values["unfair_ok"],
        budget=(Budget.parse(budget) if budget else Budget()) if auto else None,
        saturate=values["saturate"],
        saturate_concurrency=values["saturate_concurrency"],
    )


def _primary(metric: str) -> str:
    """A metric that has a margin. Raises ``UsageError``."""
    if metric == "joint_attainment":
        return metric
    from pdbench.errors import UsageError, did_you_mean
    from pdbench.stats.paired import MARGINS

    if metric not in MARGINS:
        raise UsageError(f"unknown metric '{metric}'", where="--primary", remedy=did_you_mean(metric, list(MARGINS)))
    return metric


def _declared(settings: Settings, base: str) -> dict[str, Any]:
    """What ``--print-config`` shows of a comparison alone."""
    auto = settings.budget is not None
    return {
        "base": base,
        "pairs": "auto" if auto else settings.pairs,
        **({"budget": settings.budget.text} if settings.budget else {}),
        "primary": settings.primary,
        "unfair_ok": settings.unfair_ok,
        "saturate": settings.saturate,
    }


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
        fleet=fleet_of(values),
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
        **({"workers": settings.fleet.document()} if settings.fleet else {}),
        "output": str(settings.out_dir),
        "fail_on": sorted(settings.fail_on),
        "arms": {arm.name: arm.data for arm in arms},
    }


def make_progress_of(values: dict[str, Any], runs: Runs = "open") -> Any:
    """``runs``: whether the number of pairs is known beforehand (``report.course``)."""
    from pdbench.report.progress import make_progress

    return make_progress(quiet=values["quiet"], color=wants_color(values["no_color"]), runs=runs)


def show(outcome: Outcome, values: dict[str, Any], printer: Printer | None = None) -> int:
    """The document on stdout, as JSON or as a table (``printer``: another than a comparison's); where it lies, on
    stderr."""
    if values["as_json"]:
        print_json(outcome.document)
    else:
        from pdbench.report.terminal import console_of
        from pdbench.report.text import print_document

        (printer or print_document)(outcome.document, console_of(color=wants_color(values["no_color"])))
    note(f"results: {outcome.run_dir}")
    keep_page(outcome, values)
    return outcome.exit_code
