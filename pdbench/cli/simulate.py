"""``pdbench simulate BACKEND --workload W``: the virtual clock."""

from __future__ import annotations

from typing import Any

import click

from pdbench.cli.compare import config_of, make_progress_of, settings_of, show
from pdbench.cli.echo import print_yaml
from pdbench.cli.options import (
    Command,
    fail_on_option,
    output_options,
    overrides_of,
    workload_options,
)


@click.command("simulate", cls=Command)
@click.argument("backend")
@workload_options
@fail_on_option("slo")
@output_options
def command(backend: str, **values: Any) -> int:
    """Run BACKEND on the virtual clock, as fast as the cost model can be added up.

    The same scheduler, cache and router as in the served engine; everything that comes out is marked as
    simulated.
    """
    from pdbench.settings import load_workload
    from pdbench.target.backend import resolve_backend

    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    arm = resolve_backend(backend)
    settings = settings_of({"clock": "auto", "max_concurrency": None, **values}, pairs=1)
    if values["print_config"]:
        print_yaml(config_of(workload, settings, [arm]))
        return 0
    progress = make_progress_of(values)
    from pdbench.simulate import simulate  # brings pandas and scipy

    try:
        outcome = simulate(arm, workload, settings, progress)
    finally:
        progress.close()
    return show(outcome, values)
