"""``pdbench tune BACKEND``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.compare import make_progress_of, settings_of, show
from pdbench.cli.options import Command, overrides_of, run_options, workload_options

if TYPE_CHECKING:
    from pdbench.tune import Sweep

TUNE_SEED = 1000
ROLES = ("prefill", "decode", "mixed")


@click.command("tune", cls=Command)
@click.argument("backend")
@click.option("--budgets", metavar="N,N,...", help="Token budgets of chunked workers (32,64,128,256 where allowed).")
@click.option("--max-batch-tokens", metavar="N,N,...", help="Of workers that prefill whole prompts (512 to 4096).")
@click.option(
    "--max-batch", multiple=True, metavar="[ROLE:]N,N", help="Repeatable, e.g. decode:16,32; not swept by default."
)
@click.option("--rates", metavar="R,R,...", help="Requests per second (default: the workload's rate).")
@click.option("--runs", type=click.IntRange(min=1), default=2, show_default=True, help="Plans at each rate.")
@workload_options
@run_options
@click.option("-o", "--output", metavar="FILE", help="The tuned YAML (default: NAME-tuned.yaml).")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--results", default="results", show_default=True, metavar="DIR", help="Parent of the runs' results.")
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout, everything else on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--no-color", is_flag=True, envvar="PDBENCH_NO_COLOR", help="No colours (also: NO_COLOR).")
def command(backend: str, **values: Any) -> int:
    """Find a backend's token budget and batch caps on a seed of their own, and write the tuned YAML."""
    from pdbench.settings import load_workload
    from pdbench.target.arms import base_of
    from pdbench.target.backend import resolve_backend

    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    found = resolve_backend(backend)
    base_of([found], None)
    output = output_of(values["output"] or f"{found.name}-tuned.yaml", force=values["force"])
    settings = settings_of({**values, "fail_on": (), "output": values["results"]}, pairs=1)
    progress = make_progress_of(values)
    progress.event("loading")
    from pdbench.tune import tune  # brings pandas and scipy

    try:
        outcome = tune(found, workload, sweep_of(values), settings, progress, output=output)
    finally:
        progress.close()
    from pdbench.report.tune import print_tune

    return show(outcome, values, print_tune)


def _own_seed() -> None:
    """The shared ``--seed``, but with a default of the sweep's own and without its variable: tuning on the plans of
    the test would fit them."""
    for param in command.params:
        if param.name == "seed":
            param.default, param.envvar = TUNE_SEED, None
            if isinstance(param, click.Option):
                param.help = "Of the sweep's plans; never the test's."


_own_seed()


def sweep_of(values: dict[str, Any]) -> Sweep:
    """The options that say what to try. Raises ``UsageError``."""
    from pdbench.tune import Sweep

    return Sweep(
        budgets=counts(values["budgets"], "--budgets"),
        prefills=counts(values["max_batch_tokens"], "--max-batch-tokens"),
        max_batch=dict(role_counts(text) for text in values["max_batch"]),
        rates=rates_of(values["rates"]),
        runs=values["runs"],
    )


def counts(text: str | None, where: str) -> tuple[int, ...] | None:
    """``"64,128"`` -> ``(64, 128)``. Raises ``UsageError``."""
    from pdbench.errors import UsageError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"'{text}' is not a list of numbers above 0", where=where, remedy="write 64,128,256")
    return tuple(dict.fromkeys(int(part) for part in parts))


def role_counts(text: str) -> tuple[str, tuple[int, ...]]:
    """``"decode:16,32"`` -> ``("decode", (16, 32))``; without a role ``""``. Raises ``UsageError``."""
    from pdbench.errors import UsageError, did_you_mean

    role, colon, numbers = text.rpartition(":")
    if colon and role not in ROLES:
        raise UsageError(f"unknown role '{role}'", where="--max-batch", remedy=did_you_mean(role, ROLES))
    return role, counts(numbers, "--max-batch") or ()


def rates_of(text: str | None) -> tuple[float, ...]:
    """``"1.5,2"`` -> ``(1.5, 2.0)``. Raises ``UsageError``."""
    from pdbench.errors import UsageError

    if text is None:
        return ()
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < float("inf") for rate in found):
        raise UsageError(f"'{text}' is not a list of rates above 0", where="--rates", remedy="write 1.5,2,3")
    return found


def output_of(text: str, *, force: bool) -> Path:
    """Where the YAML goes, known to be writable before anything is measured. Raises ``UsageError``."""
    import os

    from pdbench.errors import UsageError

    path = Path(text)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"'{text}' is not a YAML file's name", where="-o", remedy="end it in .yaml")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", where="-o", remedy="name another file, or say --force")
    if not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"cannot write {path}", where="-o", remedy="name a file in a writable folder")
    return path
