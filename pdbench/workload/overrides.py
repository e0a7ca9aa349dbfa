"""What the command line changes in a workload, each refusal naming its option."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar, cast, get_args

import msgspec
from msgspec.structs import replace

from pdbench.errors import UsageError, did_you_mean
from pdbench.workload.arrival_spec import Arrivals, Process
from pdbench.workload.length_spec import Lengths
from pdbench.workload.spec import Workload

T = TypeVar("T", bound=msgspec.Struct)


def with_overrides(
    w: Workload,
    *,
    rate: float | None = None,
    burstiness: float | None = None,
    arrivals: str | None = None,
    num_requests: int | None = None,
    duration_s: float | None = None,
    warmup: int | None = None,
    slo: list[str] | None = None,
    time_scale: float | None = None,
    length_scale: float | None = None,
    start_row: int | None = None,
    rows: int | None = None,
    start_s: float | None = None,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
) -> Workload:
    """The workload with what the command line asked for; ``None`` leaves a value as it is.

    ``duration_s`` sets the number of requests that fit at the mean rate; for a trace it cuts the slice.
    Raises ``UsageError`` naming the option.
    """
    if duration_s is not None and num_requests is not None:
        raise UsageError("--duration and --num-requests both set the number of requests", remedy="give one")
    if arrivals is not None:
        w = _with_process(w, arrivals, rate)
    if burstiness is not None and w.arrivals.process == "poisson":
        # Gamma gaps of shape 1 are Poisson's, so asking for burstiness names the law.
        w = _replaced(w, "--burstiness", {"process": "gamma", "burstiness": burstiness})
    changes: dict[str, dict[str, Any]] = {
        "--burstiness": {"burstiness": burstiness},
        "--rate": {"rate": rate},
        "--time-scale": {"time_scale": time_scale},
        "--length-scale": {"length_scale": length_scale},
        "--start-row": {"start_row": start_row},
        "--rows": {"rows": rows},
        "--start": {"start_s": start_s},
    }
    for option, fields in changes.items():
        w = _replaced(w, option, fields)
    if duration_s is not None:
        w, num_requests = _with_duration(w, duration_s)
    elif rows is not None and num_requests is None:
        num_requests = rows
    top: dict[str, dict[str, Any]] = {
        "--prompt-tokens": {"prompt_tokens": _fixed("--prompt-tokens", prompt_tokens)},
        "--output-tokens": {"output_tokens": _fixed("--output-tokens", output_tokens)},
        "--num-requests": {"num_requests": num_requests},
        "--warmup": {"warmup": warmup},
        "--slo": {"slo": slo},
    }
    for option, fields in top.items():
        w = _changed(w, option, fields)
    return w


def _changed(item: T, option: str, fields: dict[str, Any]) -> T:
    """``item`` with the fields that are not ``None``; a refusal names the option."""
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        return replace(item, **present) if present else item
    except ValueError as error:
        raise UsageError(str(error), where=option) from None


def _replaced(w: Workload, option: str, fields: dict[str, Any]) -> Workload:
    """``w`` with changed arrivals."""
    return _changed(w, option, {"arrivals": _changed(w.arrivals, option, fields)})


def _fixed(option: str, value: int | None) -> Lengths | None:
    if value is None:
        return None
    return _changed(Lengths(distribution="fixed", value=1), option, {"value": value})


def _with_process(w: Workload, text: str, rate: float | None) -> Workload:
    process, _, file = text.partition(":")
    if process == "trace":
        if not file:
            raise UsageError("a trace needs a file", where="--arrivals", remedy="write --arrivals trace:FILE")
        arrivals = Arrivals(process="trace", file=file)
        return replace(w, arrivals=arrivals, prompt_tokens=None, output_tokens=None)
    known = [name for name in get_args(Process) if name not in ("trace", "at")]
    if process not in known or file:
        raise UsageError(
            f"unknown arrival process '{text}'",
            where="--arrivals",
            remedy=did_you_mean(process, [*known, "trace:FILE"]),
        )
    if w.prompt_tokens is None or w.output_tokens is None:
        raise UsageError(
            f"workload '{w.name}' takes its lengths from a trace, so '{process}' has none",
            where="--arrivals",
            remedy="give --prompt-tokens and --output-tokens in a workload file of its own",
        )
    rate = rate if rate is not None else w.arrivals.rate
    if rate is None:
        raise UsageError(f"'{process}' needs a rate", where="--arrivals", remedy="add --rate REQUESTS_PER_S")
    kind = cast(Literal["poisson", "constant", "gamma"], process)
    base = Arrivals(process=kind, rate=1.0, burstiness=None)
    shape = (w.arrivals.burstiness or 1.0) if process == "gamma" else None
    return replace(w, arrivals=_changed(base, "--rate", {"rate": rate, "burstiness": shape}))


def _with_duration(w: Workload, duration_s: float) -> tuple[Workload, int]:
    """The workload and the number of measured requests that fill ``duration_s``."""
    if not (duration_s > 0 and math.isfinite(duration_s)):
        raise UsageError(f"duration must be greater than 0, got {duration_s:g} s", where="--duration")
    if w.arrivals.process == "trace":
        from pdbench.workload.traces import count_rows

        w = _replaced(w, "--duration", {"duration_s": duration_s})
        return w, count_rows(w.arrivals)
    if w.arrivals.rate is None:
        raise UsageError(f"workload '{w.name}' names its instants one by one", where="--duration")
    return w, max(1, round(w.arrivals.rate * duration_s))
