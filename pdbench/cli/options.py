"""The options that several commands share, each with its ``PDBENCH_*`` variable.

Names are those that users of other benchmark clients know. Values are checked where they are used, so that an
option, a variable and a YAML key are refused in the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

if TYPE_CHECKING:
    from pdbench.fleetspec import FleetSpec
    from pdbench.settings import Overrides
    from pdbench.workload.shapes import Shape

F = TypeVar("F", bound=Callable[..., Any])


class Objectives(click.ParamType[str]):
    """One ``--slo``; in the environment several are separated by ``;`` since an objective holds blanks."""

    name = "objective"
    envvar_list_splitter: ClassVar[str] = ";"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        del param, ctx
        return str(value).strip()


class Pairs(click.ParamType[str]):
    """A number of pairs, or ``auto``."""

    name = "pairs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if text != "auto" and not (text.isdecimal() and int(text) >= 1):
            self.fail(f"'{text}' is neither a number of pairs (1 or more) nor auto", param, ctx)
        return text


class Command(click.Command):
    """A command whose ``--goodput`` takes several values, as peers do: ``--goodput ttft:400 tpot:40``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, joined_goodput(args))


def joined_goodput(args: list[str]) -> list[str]:
    """``["--goodput", "ttft:400", "tpot:40"]`` -> ``["--goodput", "ttft:400 tpot:40"]``."""
    joined: list[str] = []
    inside = False
    for arg in args:
        pair = ":" in arg and not arg.startswith("-") and "/" not in arg and "=" not in arg
        if inside and pair and joined[-1] != "--goodput":
            joined[-1] += f" {arg}"
            continue
        inside = (inside and pair) or arg == "--goodput"
        joined.append(arg)
    return joined


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    settings.setdefault("envvar", "PDBENCH_" + long[2:].replace("-", "_").upper())
    return click.option(*names, **settings)


_WORKLOAD = [
    _option("-w", "--workload", metavar="NAME|FILE", help="What is sent, and when (default: chat)."),
    _option("--rate", type=float, metavar="REQ/S", help="Mean arrival rate."),
    _option("--burstiness", type=float, help="Shape of gamma gaps: 1 is Poisson, below 1 is burstier."),
    _option(
        "--arrivals",
        metavar="KIND",
        help="poisson, constant, gamma, trace:FILE, ramp:1:8:60s, "
        "step:2:8:30s, spike:2:10:20s:5s, diurnal:3:0.6:120s, curve:0s=1:30s=4 or closed.",
    ),
    _option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Streams of a closed loop."),
    _option("--num-requests", type=int, metavar="N", help="Measured requests in a run."),
    _option("--duration", metavar="TIME", help="Instead of --num-requests, e.g. 60s."),
    _option("--warmup", type=int, metavar="N", help="Requests sent before the measured ones."),
    _option(
        "--slo",
        multiple=True,
        type=Objectives(),
        help='Repeatable, e.g. "ttft p90 <= 400ms"; replaces the list.',
    ),
    _option("--goodput", metavar="M:MS ...", help="SLO in short, in ms: --goodput ttft:400 tpot:40."),
    _option("--time-scale", type=float, help="Multiply a trace's gaps."),
    _option("--length-scale", type=float, help="Multiply a trace's lengths."),
    _option("--jitter", metavar="TIME|auto|off", help="Spread a trace's stamps that lie on a grid."),
    _option("--prompt-tokens", type=int, metavar="N", help="Fixed length of prompts."),
    _option("--output-tokens", type=int, metavar="N", help="Fixed length of answers."),
    _option("--prompts", metavar="FILE", help="Real prompts from a JSONL file."),
    _option("--tokenizer", metavar="PATH|NAME", help="Count prompt tokens exactly by this tokenizer."),
    _option("--prompt-ids", is_flag=True, help="Send prompts as token ids (needs --tokenizer)."),
    _option("--slice", metavar="A:B", help="Rows A to B of a trace, B left out."),
    _option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the plans."),
]
_SHAPE = [
    _option("--shape", metavar="FILE[:CLASS]", help="A Locust LoadTestShape that says how the load goes."),
    _option(
        "--shape-means",
        type=click.Choice(["rate", "concurrency"]),
        default="rate",
        show_default=True,
        help="What its user count is: requests/s, or open streams.",
    ),
]
_RUN = [
    _option("--max-concurrency", type=click.IntRange(min=1), metavar="N", help="Limit of open requests."),
    _option(
        "--clock",
        type=click.Choice(["auto", "kernel", "user"]),
        default="auto",
        show_default=True,
        help="Who stamps what is received.",
    ),
]
_FLEET = [
    _option("--expect-workers", type=click.IntRange(min=1), metavar="N", help=
            "Share the load among N of pdbench worker, on this host or others."),
    _option("--bind", metavar="HOST", help="Where workers reach this master (default: 127.0.0.1)."),
    _option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Its port (default: 5557)."),
    _option("--worker-timeout", metavar="TIME", default="60s", show_default=True, help="How long to wait for them."),
    _option("--processes", type=click.IntRange(min=1), metavar="N", help="Share it among N workers started here."),
]  # fmt: skip
_COMPARISON = [
    _option("--pairs", type=Pairs(), default="6", show_default=True, metavar="N|auto", help=
            "Runs of every arm; auto: as many as planned looks need."),
    _option("--budget", metavar="TIME|PAIRS", help="The most --pairs auto may take, e.g. 30m or 10."),
    _option("--base", metavar="ARM", help="What the others are compared to."),
    _option("--primary", metavar="METRIC", default="joint_attainment", show_default=True, help=
            "The metric that decides, e.g. ttft_p90."),
    _option("--unfair-ok", is_flag=True, help="Compare arms that differ in more than they should, and say so."),
    _option("--saturate", is_flag=True, help="One closed-loop run more of every arm, for its throughput."),
    _option("--saturate-concurrency", type=click.IntRange(min=1), metavar="N", help=
            "Streams of that run (default: the largest sum of max_batch)."),
]  # fmt: skip
_OUTPUT = [
    _option("-o", "--output", metavar="DIR", default="results", show_default=True, help="Parent of the results."),
    _option("--json", "as_json", is_flag=True, help="Pure JSON on stdout, everything else on stderr."),
    _option("-q", "--quiet", is_flag=True, help="No progress."),
    _option("--no-color", is_flag=True, help="No colours (also: NO_COLOR)."),
    _option("--no-report", is_flag=True, help="Write no report.html beside the results."),
    _option("--print-config", is_flag=True, help="Print what would run, as YAML, and end."),
]


def _stack(options: list[Callable[[Any], Any]]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


workload_options = _stack([*_WORKLOAD, *_SHAPE])
run_options = _stack([*_RUN, *_FLEET])
output_options = _stack(_OUTPUT)
comparison_options = _stack(_COMPARISON)
fleet_options = _stack(_FLEET)


def fail_on_option(*choices: str) -> Callable[[F], F]:
    """``--fail-on``: which outcomes end in exit code 10."""
    return _option(
        "--fail-on",
        multiple=True,
        type=click.Choice(list(choices)),
        help="Exit with 10 when an objective is missed (slo) or a head is worse (worse).",
    )


def fleet_of(values: dict[str, Any]) -> FleetSpec | None:
    """The options about load workers. Raises ``UsageError``."""
    from pdbench.fleetspec import fleet_spec
    from pdbench.units import NS_PER_S, parse_duration_ns

    if "expect_workers" not in values:
        return None
    timeout_s = parse_duration_ns(values["worker_timeout"], where="--worker-timeout") / NS_PER_S
    return fleet_spec(
        values["expect_workers"], values["processes"], bind=values["bind"], port=values["port"], timeout_s=timeout_s
    )


def overrides_of(values: dict[str, Any]) -> Overrides:
    """The workload's options as ``Overrides``. Raises ``UsageError`` for a bad duration."""
    from pdbench.settings import Overrides
    from pdbench.units import NS_PER_S, parse_duration_ns

    duration = values["duration"]
    duration_s = parse_duration_ns(duration, where="--duration") / NS_PER_S if duration else None
    shape = _shape_of(values, duration_s)
    return Overrides(
        rate=values["rate"],
        burstiness=values["burstiness"],
        arrivals=values["arrivals"],
        concurrency=values["concurrency"],
        num_requests=values["num_requests"],
        duration_s=duration_s,
        shape=shape,
        warmup=values["warmup"],
        slo=tuple(values["slo"]),
        goodput=values["goodput"],
        time_scale=values["time_scale"],
        length_scale=values["length_scale"],
        jitter=values["jitter"],
        prompt_tokens=values["prompt_tokens"],
        output_tokens=values["output_tokens"],
        prompts=values["prompts"],
        tokenizer=values["tokenizer"],
        prompt_ids=values["prompt_ids"],
        slice=values["slice"],
    )


def _shape_of(values: dict[str, Any], duration_s: float | None) -> Shape | None:
    """The shape that ``--shape`` names, asked ahead of time what it will do. Raises ``UsageError``."""
    if not values.get("shape"):
        return None
    from pdbench.errors import UsageError
    from pdbench.load.shapefile import read_shape

    for name in ("rate", "arrivals", "concurrency"):
        if values.get(name) is not None and not (name == "arrivals" and values[name] in ("constant", "poisson")):
            raise UsageError("--shape says how the load goes", where=f"--{name}", remedy="give one of the two")
    return read_shape(values["shape"], values["shape_means"], duration_s)
