"""``pdbench run BACKEND | --base-url URL --model NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.compare import config_of, make_progress_of, settings_of, show
from pdbench.cli.echo import print_yaml
from pdbench.cli.options import (
    Command,
    fail_on_option,
    output_options,
    overrides_of,
    run_options,
    workload_options,
)

if TYPE_CHECKING:
    from pdbench.settings import Settings
    from pdbench.target.backend import Backend
    from pdbench.workload.spec import Workload


@click.command("run", cls=Command)
@click.argument("backend", required=False, metavar="[BACKEND|NAME=URL]")
@click.option("--base-url", metavar="URL", envvar="PDBENCH_BASE_URL", help="A server that already runs.")
@click.option("--model", metavar="NAME", envvar="PDBENCH_MODEL", help="Which of its models (default: the first).")
@click.option("--name", metavar="ARM", envvar="PDBENCH_NAME", help="What to call it (default: server).")
@click.option(
    "--api", type=click.Choice(["completions", "chat"]), envvar="PDBENCH_API",
    help="Which of OpenAI's APIs (default: completions).",
)  # fmt: skip
@click.option("--api-key-env", metavar="VAR", help="The variable that holds the API key.")
@workload_options
@run_options
@fail_on_option("slo")
@output_options
def command(**values: Any) -> int:
    """Run one load against one backend."""
    arm, workload, settings = asked_of(values)
    if values["print_config"]:
        print_yaml(config_of(workload, settings, [arm]))
        return 0
    progress = make_progress_of(values, "all")
    progress.event("loading")
    from pdbench.compare import compare  # brings pandas and scipy: not before the input is known to be good

    try:
        outcome = compare([arm], workload, settings, progress, kind="run")
    finally:
        progress.close()
    return show(outcome, values)


def asked_of(values: dict[str, Any]) -> tuple[Backend, Workload, Settings]:
    """The one arm, the workload and the settings that the options name. Raises ``UsageError``."""
    from pdbench.settings import load_workload
    from pdbench.target.arms import base_of

    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    changes = {key: values[key] for key in ("model", "api", "api_key_env")}
    arm = _backend(values["backend"], values["base_url"], values["name"], changes)
    base_of([arm], None)
    return arm, workload, settings_of(values, pairs=1)


def _backend(text: str | None, base_url: str | None, name: str | None, asked: dict[str, str | None]) -> Backend:
    """The one arm, from a backend or from a URL; never from both."""
    from dataclasses import replace

    from pdbench.errors import UsageError
    from pdbench.target.backend import check_name, resolve_backend, url_backend

    if (text is None) == (base_url is None):
        raise UsageError("give either a BACKEND or --base-url", remedy="pdbench backends list shows backends")
    if base_url is not None:
        found = url_backend(name or "server", base_url)
    else:
        found = resolve_backend(text or "")
        if name is not None:
            check_name(name, where="--name")
            found = replace(found, name=name)
    changes: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if changes and found.engine == "pdserve":
        option = f"--{next(iter(changes)).replace('_', '-')}"
        raise UsageError("applies to a server that is not ours", where=option, remedy="the YAML says it")
    return replace(found, **changes)
