"""``pdbench workloads list|show|check``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from pdbench import resources
from pdbench.cli.echo import print_json, print_yaml

if TYPE_CHECKING:
    from pdbench.workload.plan import Plan


@click.group("workloads")
def command() -> None:
    """List, show and check workloads."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
def list_(as_json: bool) -> None:
    """The shipped workloads."""
    from pdbench.settings import load_workload

    found = [load_workload(name) for name in resources.names("workload")]
    if as_json:
        print_json([{"name": one.name, "description": one.description} for one in found])
        return
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        click.echo(f"{one.name:{width}}  {one.description}")


@command.command("show")
@click.argument("workload")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
def show(workload: str, seed: int, as_json: bool) -> None:
    """A workload, resolved, and the plan a seed makes of it."""
    described = _describe(workload, seed)
    if as_json:
        print_json(described)
    else:
        print_yaml(described)


@command.command("check")
@click.argument("workloads", nargs=-1)
def check(workloads: tuple[str, ...]) -> None:
    """Read workloads (all shipped ones by default), parse their SLOs and make a plan of each."""
    for text in workloads or tuple(resources.names("workload")):
        plan = _describe(text, 0)["plan"]
        click.echo(f"{text}: ok, {plan['requests']} requests")


def _describe(text: str, seed: int) -> dict[str, Any]:
    from pdbench.settings import load_workload, workload_data
    from pdbench.workload.notes import notes_of
    from pdbench.workload.plan import make_plan

    workload = load_workload(text)
    notes = notes_of(workload)
    plan = make_plan(workload, seed=seed)
    return {
        **workload_data(workload),
        "plan": {
            "seed": seed,
            "hash": plan.hash,
            "requests": len(plan),
            "warmup": int(plan.warmup.sum()),
            "requests_per_s": round(plan.rate, 4) if math.isfinite(plan.rate) else None,
            "seconds": round(float(plan.scheduled_ns[-1]) / 1e9, 3),
            "prompt_tokens": int(plan.prompt_tokens.sum()),
            "output_tokens": int(plan.output_tokens.sum()),
            **_shown(plan),
        },
        **({"notes": notes} if notes else {}),
    }


def _shown(plan: Plan) -> dict[str, Any]:
    """What only some plans have."""
    from pdbench.workload.segments import repeated_tokens

    found: dict[str, Any] = {}
    if plan.concurrency:
        found["streams"] = [[at_ns / 1e9, streams] for at_ns, streams in plan.concurrency]
    if plan.segments:
        found["repeated_prompt_tokens"] = repeated_tokens(plan.segments)
    if plan.dropped:
        found["dropped"] = plan.dropped
    return found
