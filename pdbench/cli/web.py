"""``pdbench web``: Locust's web UI with our start form, an SLO tab and live charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.echo import note
from pdbench.cli.options import fleet_of, fleet_options

if TYPE_CHECKING:
    from pdbench.web.fields import Asked, Preset

_LOOPBACK = "127.0.0.1"


@click.command("web")
@click.option(
    "--web-host",
    default=_LOOPBACK,
    show_default=True,
    envvar="PDBENCH_WEB_HOST",
    metavar="HOST",
    help="Where the page listens.",
)
@click.option(
    "--web-port", type=click.IntRange(0, 65535), default=8089, show_default=True, envvar="PDBENCH_WEB_PORT",
    metavar="PORT", help="Its port (0: any that is free).",
)  # fmt: skip
@click.option(
    "--web-name", multiple=True, envvar="PDBENCH_WEB_NAME", metavar="NAME",
    help="A host name by which the page may be asked for, besides addresses and this machine's own (repeatable).",
)  # fmt: skip
@click.option(
    "--web-login", is_flag=True, envvar="PDBENCH_WEB_LOGIN",
    help="Ask for the user and password in PDBENCH_WEB_USER and PDBENCH_WEB_PASSWORD.",
)  # fmt: skip
@click.option("--base-url", metavar="URL", envvar="PDBENCH_BASE_URL", help="A server that already runs, for the form.")
@click.option("--model", metavar="NAME", envvar="PDBENCH_MODEL", help="Which of its models.")
@click.option(
    "--api", type=click.Choice(["completions", "chat"]), envvar="PDBENCH_API",
    help="Which of OpenAI's APIs it is asked by (default: completions).",
)  # fmt: skip
@click.option("--api-key-env", metavar="VAR", help="The variable that holds its API key; no other server gets it.")
@fleet_options
@click.option(
    "-o", "--output", metavar="DIR", default="results", show_default=True, envvar="PDBENCH_OUTPUT",
    help="Parent of the results.",
)  # fmt: skip
def command(**values: Any) -> int:
    """Fill a form, watch the SLO live, stop, edit the rate, and open the report: in a browser.

    The page listens on 127.0.0.1 unless told otherwise. --bind and --port are where workers reach the master, as in
    pdbench run; --web-host and --web-port are the page's own.
    """
    from pdbench.errors import UsageError
    from pdbench.target.backend import clean_url
    from pdbench.web.guard import Account

    account = Account.from_environment() if values["web_login"] else None
    if values["api_key_env"] and not values["base_url"]:
        raise UsageError("needs --base-url", where="--api-key-env", remedy="the key is sent to that server alone")
    if values["base_url"]:
        clean_url(values["base_url"], where="--base-url")
    fleet = fleet_of(values)
    note("loading")
    from pdbench.web.serve import Options, serve

    options = Options(values["web_host"], values["web_port"], account, values["web_name"], fleet, preset_of(values))
    return serve(options, resolve, note)


def preset_of(values: dict[str, Any]) -> Preset:
    """What goes with every run of the page."""
    from pdbench.web.fields import Preset

    extra = ["-o", values["output"]]
    for name in ("processes", "expect_workers", "bind", "port", "worker_timeout"):
        if values[name] is not None and (name != "worker_timeout" or values["processes"] or values["expect_workers"]):
            extra += [f"--{name.replace('_', '-')}", str(values[name])]
    return Preset(
        extra=tuple(extra),
        base_url=values["base_url"] or "",
        model=values["model"] or "",
        api=values["api"] or "",
        api_key_env=values["api_key_env"] or "",
    )


def resolve(kind: str, args: list[str]) -> Asked:
    """What these arguments of ``pdbench run`` or ``compare`` mean, checked by those commands. Raises ``UsageError``."""
    from dataclasses import replace

    from pdbench.errors import UsageError
    from pdbench.web.fields import Asked

    try:
        found = _run(args) if kind == "run" else _compare(args)
    except click.ClickException as error:
        option = getattr(getattr(error, "param", None), "opts", [""])[0]
        message = getattr(error, "message", None) or error.format_message()
        raise UsageError(str(message), where=option) from None
    _check_plan(found)
    return Asked(kind, found.arms, found.workload, replace(found.settings, argv=("pdbench", kind, *args)), found.base)


def _check_plan(found: Asked) -> None:
    """What the verb itself refuses first: told in the form, before a run is said to have started."""
    from pdbench.summary import fairness_before
    from pdbench.workload.plan import make_plan

    fairness_before(found.arms).check(unfair_ok=found.settings.unfair_ok)
    known = [arm.max_model_len for arm in found.arms if arm.max_model_len is not None]
    make_plan(found.workload, seed=found.settings.seed, max_model_len=min(known, default=None))


def _run(args: list[str]) -> Asked:
    from pdbench.cli.run import asked_of
    from pdbench.cli.run import command as run
    from pdbench.web.fields import Asked

    arm, workload, settings = asked_of(run.make_context("run", list(args)).params)
    return Asked("run", [arm], workload, settings)


def _compare(args: list[str]) -> Asked:
    from pdbench.cli.compare import command as compare
    from pdbench.cli.compare import comparison_settings
    from pdbench.cli.options import overrides_of
    from pdbench.settings import load_workload
    from pdbench.target.arms import base_of
    from pdbench.target.backend import resolve_backend
    from pdbench.web.fields import Asked

    values = compare.make_context("compare", list(args)).params
    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    arms = [resolve_backend(text) for text in values["backends"]]
    return Asked("compare", arms, workload, comparison_settings(values), base_of(arms, values["base"]))
