"""``pdbench gate --base X --head Y``: the performance gate of a CI, its calibration and its self-test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdbench.cli.compare import make_progress_of, settings_of
from pdbench.cli.echo import note, print_json, print_yaml, wants_color
from pdbench.cli.options import Command, output_options, overrides_of, run_options, workload_options
from pdbench.cli.report import keep_page

if TYPE_CHECKING:
    from rich.console import Console

    from pdbench.target.backend import Backend
    from pdbench.workload.spec import Workload

_SIDE = "BACKEND|FILE|URL|REF"


@click.command("gate", cls=Command)
@click.option("--base", metavar=_SIDE, envvar="PDBENCH_BASE", help="What the head must not be worse than.")
@click.option("--head", metavar=_SIDE, envvar="PDBENCH_HEAD", help="What is judged.")
@click.option("--backend", metavar="NAME", help="The backend that a git ref is asked for.")
@click.option("--inject-head", metavar="FAULTS", help="Make the head worse on purpose, e.g. decode:1.5,stall:2%@50ms.")
@click.option("--primary", metavar="METRIC", help="The metric that decides (default: joint_attainment).")
@click.option("--primary-only", is_flag=True, help="No other metric may fail the gate.")
@click.option("--max-pairs", type=int, metavar="N", help="Pairs at most (default: 16; with --calibrate: 10).")
@click.option(
    "--redo", type=click.IntRange(0, 10), default=1, show_default=True, envvar="PDBENCH_REDO",
    help="How often a pair whose measurement went wrong is run again.",
)  # fmt: skip
@click.option("--slo-check", is_flag=True, help="Also ask whether the head keeps the SLO.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="JUnit XML for a CI.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="A job summary.")
@click.option("--calibrate", is_flag=True, help="Learn this machine's noise from --base against itself.")
@click.option("--self-test", is_flag=True, help="Judge simulated runs whose truth is known, and end.")
@click.option("--comparisons", type=click.IntRange(min=10), default=2000, hidden=True)
@workload_options
@run_options
@output_options
def command(base: str | None, head: str | None, **values: Any) -> int:
    """Is the head worse than the base? Pairs of runs until it is known.

    \b
    0 pass   10 fail   11 inconclusive   12 invalid   2 usage   130 interrupted

    \b
    pdbench gate --base main --head HEAD --backend colocated-chunked
    pdbench gate --base old=http://... --head new=http://...
    pdbench gate --calibrate --base colocated-chunked
    """
    from pdbench.errors import UsageError
    from pdbench.settings import load_workload

    if values["self_test"]:
        return _self_test(values)
    if base is None or (head is None and not values["calibrate"]):
        missing = "--base" if base is None else "--head"
        raise UsageError(f"{missing} is missing", remedy="e.g. pdbench gate --base main --head HEAD --backend NAME")
    for text in (base, head or ""):
        if text.endswith(".json"):
            _stored(text)
    workload = load_workload(values["workload"] or "chat", overrides_of(values))
    if values["calibrate"]:
        return _calibrate(base, head, workload, values)
    return _gate(base, str(head), workload, values)


def _stored(text: str) -> None:
    """A baseline that is absent or was edited is told before it is said what it can be used for."""
    from pdbench.baseline import load

    load(Path(text))


def _gate(base: str, head: str, workload: Workload, values: dict[str, Any]) -> int:
    from pdbench.heads import open_sides
    from pdbench.target.arms import base_of

    _writable(values)
    with open_sides(base, head, backend=values["backend"], inject=values["inject_head"]) as sides:
        backends = [side.backend for side in sides]
        base_of(backends, backends[0].name)
        if values["print_config"]:
            print_yaml(_config(workload, backends, values))
            return 0
        settings = settings_of({**values, "fail_on": ()}, pairs=_max_pairs(values))
        progress = make_progress_of(values, "at most")
        from pdbench import calibrate
        from pdbench.gate import Ask, gate

        known = calibrate.load(settings.out_dir, backends[0])
        ask = Ask(
            primary=values["primary"] or Ask().primary,
            max_pairs=settings.pairs,
            primary_only=values["primary_only"],
            slo_check=values["slo_check"],
            redo=values["redo"],
            probe_sd=known["probe_sd"] if known else {},
            sides={side.role: side.document() for side in sides},
        )
        try:
            outcome = gate(backends, workload, settings, progress, ask)
        finally:
            progress.close()
    _write(outcome.document, values)
    if values["as_json"]:
        print_json(outcome.document)
    else:
        from pdbench.report.gate import print_gate

        print_gate(outcome.document, _console(values))
    note(f"results: {outcome.run_dir}")
    keep_page(outcome, values)
    return outcome.exit_code


def _max_pairs(values: dict[str, Any]) -> int:
    return 16 if values["max_pairs"] is None else int(values["max_pairs"])


def _write(document: dict[str, Any], values: dict[str, Any]) -> None:
    """The files asked for, and the summary of a GitHub job where there is one."""
    from pdbench.report.junit import junit
    from pdbench.report.markdown import markdown

    if values["junit"] is not None:
        _put(values["junit"], junit(document), "--junit")
    if values["markdown"] is not None:
        _put(values["markdown"], markdown(document), "--markdown")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        _put(Path(summary), markdown(document), "GITHUB_STEP_SUMMARY", add=True)


def _writable(values: dict[str, Any]) -> None:
    """An hour of runs must not end in a folder that is not there."""
    from pdbench.errors import UsageError

    for option in ("junit", "markdown"):
        path: Path | None = values[option]
        if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"cannot write {path}", where=f"--{option}", remedy="name a file in a writable folder")


def _put(path: Path, text: str, where: str, *, add: bool = False) -> None:
    from pdbench.errors import UsageError

    try:
        with path.open("a" if add else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", where=where) from error


def _calibrate(base: str, head: str | None, workload: Workload, values: dict[str, Any]) -> int:
    from pdbench.errors import UsageError
    from pdbench.heads import open_sides

    if head is not None or values["inject_head"]:
        what = "--head" if head is not None else "--inject-head"
        raise UsageError("a calibration runs the base against itself", where=what, remedy=f"leave out {what}")
    with open_sides(base, base, backend=values["backend"]) as sides:
        asked = sides[0].backend
        backend = _renamed(asked)
        if values["print_config"]:
            print_yaml(_config(workload, [backend], values))
            return 0
        from pdbench.calibrate import DEFAULT_PAIRS, calibrate

        pairs = values["max_pairs"] if values["max_pairs"] is not None else DEFAULT_PAIRS
        progress = make_progress_of(values, "all")
        try:
            settings = settings_of({**values, "fail_on": ()}, pairs=pairs)
            outcome = calibrate(backend, workload, settings, progress, pairs=pairs, redo=values["redo"])
        finally:
            progress.close()
    if values["as_json"]:
        print_json(outcome.document)
    else:
        from pdbench.report.gate import print_calibration

        print_calibration(outcome.document, _console(values))
    note(f"stored: {outcome.path}" if outcome.path else f"results: {outcome.run_dir}")
    return outcome.exit_code


def _renamed(backend: Backend) -> Backend:
    """``open_sides`` told two alike apart; here they are one."""
    from dataclasses import replace

    return replace(backend, name=backend.name.removesuffix("-base"))


def _config(workload: Workload, backends: list[Backend], values: dict[str, Any]) -> dict[str, Any]:
    from pdbench.cli.compare import config_of

    return config_of(workload, settings_of({**values, "fail_on": ()}, pairs=_max_pairs(values)), backends)


def _self_test(values: dict[str, Any]) -> int:
    from pdbench.gate import self_test

    say = (lambda _: None) if values["quiet"] else note
    document, code = self_test(seed=values["seed"], comparisons=values["comparisons"], say=say)
    if values["as_json"]:
        print_json(document)
    else:
        from pdbench.report.gate import print_self_test

        print_self_test(document, _console(values))
    return code


def _console(values: dict[str, Any]) -> Console:
    from pdbench.report.terminal import console_of

    return console_of(color=wants_color(values["no_color"]))
