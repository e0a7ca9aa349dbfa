"""``pdbench search BACKEND ...``."""

from __future__ import annotations

from typing import Any

import click

from pdbench.cli.compare import config_of, make_progress_of, settings_of, show
from pdbench.cli.echo import print_yaml
from pdbench.cli.options import Command, output_options, overrides_of, run_options, workload_options


@click.command("search", cls=Command)
@click.argument("backends", nargs=-1, metavar="[BACKEND|NAME=URL]...")
@click.option("--share", default="90%", show_default=True, help="Of the requests that must keep the whole SLO.")
@click.option("--budget", default="60m", show_default=True, metavar="TIME|RUNS", help="In all, e.g. 60m, or 24 runs.")
@click.option("--start-rate", type=float, metavar="REQ/S", help="Where to begin (default: the workload's rate).")
@click.option("--half-width", metavar="SHARE", help="Of the interval at which an arm is done (10%, on GPUs 3%).")
@click.option("--certify", is_flag=True, help="Claim the lower bound instead of the crossing.")
@click.option("--base", metavar="ARM", envvar="PDBENCH_BASE", help="What the others are compared to.")
@click.option("--unfair-ok", is_flag=True, help="Go on where the arms' configurations differ; the result is marked.")
@workload_options
@run_options
@output_options
def command(
    backends: tuple[str, ...],
    share: str,
    budget: str,
    start_rate: float | None,
    half_width: str | None,
    certify: bool,
    base: str | None,
    unfair_ok: bool,
    **values: Any,
) -> int:
    """Find the rate that each backend carries within the SLO: goodput, in all and per device.

    Without BACKENDs: colocated-chunked (the base), colocated and disaggregated, on workload chat.
    """
    from pdbench.settings import load_workload
    from pdbench.target.arms import DEFAULT_ARMS, base_of
    from pdbench.target.backend import resolve_backend
    from pdbench.units import parse_share

    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    arms = [resolve_backend(text) for text in backends or DEFAULT_ARMS]
    base = base_of(arms, base)
    settings = settings_of({"fail_on": (), **values}, pairs=1)
    if values["print_config"]:
        asked_for = {"share": share, "budget": budget, "start_rate": start_rate, "certify": certify, "base": base}
        print_yaml(config_of(workload, settings, arms) | asked_for)
        return 0
    progress = make_progress_of(values)
    progress.event("loading")
    from pdbench.search import Asked, Budget, search  # brings pandas and scipy

    try:
        asked = Asked(
            Budget.parse(budget),
            start_rate,
            parse_share(share, where="--share"),
            None if half_width is None else parse_share(half_width, where="--half-width"),
            certify,
        )
        outcome = search(arms, workload, asked, settings, progress, base=base, unfair_ok=unfair_ok)
    finally:
        progress.close()
    from pdbench.report.search import print_search

    return show(outcome, values, print_search)
