"""What the command line changes in a workload, each refusal naming its option."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar, cast

import msgspec
from msgspec.structs import replace

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, format_duration
from pdbench.workload.arrival_spec import CURVES, Arrivals
from pdbench.workload.length_spec import Lengths
from pdbench.workload.prompt_spec import Prompts
from pdbench.workload.spec import Workload, expected_requests
from pdbench.workload.spellings import read_arrivals

T = TypeVar("T", bound=msgspec.Struct)
_HOMOGENEOUS = ("poisson", "constant", "gamma")


def with_overrides(
    w: Workload,
    *,
    rate: float | None = None,
    burstiness: float | None = None,
    arrivals: str | None = None,
    concurrency: int | None = None,
    num_requests: int | None = None,
    duration_s: float | None = None,
    warmup: int | None = None,
    slo: list[str] | None = None,
    time_scale: float | None = None,
    length_scale: float | None = None,
    jitter: str | None = None,
    start_row: int | None = None,
    rows: int | None = None,
    start_s: float | None = None,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    prompts: str | None = None,
    tokenizer: str | None = None,
    prompt_ids: bool | None = None,
) -> Workload:
    """The workload with what the command line asked for; ``None`` leaves a value as it is.

    ``duration_s`` sets the number of requests that fit at the mean rate; for a trace it cuts the slice, and it ends a
    closed loop. Raises ``UsageError`` naming the option.
    """
    if duration_s is not None and num_requests is not None:
        raise UsageError("--duration and --num-requests both set the number of requests", remedy="give one")
    if prompts is not None and prompt_tokens is not None:
        raise UsageError("real prompts have lengths of their own", where="--prompt-tokens", remedy="leave it out")
    w = _with_lengths(w, prompt_tokens, output_tokens)
    w = _with_prompts(w, prompts, tokenizer, prompt_ids)
    if arrivals is not None:
        w = _with_process(w, arrivals, rate, concurrency)
    if burstiness is not None:
        w = _with_gamma(w, burstiness)
    changes: dict[str, dict[str, Any]] = {
        "--burstiness": {"burstiness": burstiness},
        "--rate": {"rate": rate},
        "--concurrency": {"concurrency": concurrency},
        "--time-scale": {"time_scale": time_scale},
        "--length-scale": {"length_scale": length_scale},
        "--jitter": {"jitter": jitter},
        "--start-row": {"start_row": start_row},
        "--rows": {"rows": rows},
        "--start": {"start_s": start_s},
    }
    for option, fields in changes.items():
        w = _replaced(w, option, fields)
    if duration_s is not None:
        w = _with_duration(w, duration_s)
    elif rows is not None and num_requests is None:
        num_requests = rows
    top: dict[str, dict[str, Any]] = {
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
    if present.get("num_requests") == 0:  # in a file a missing number; here a wish
        raise UsageError("num_requests must be greater than 0, got 0", where=option)
    try:
        return replace(item, **present) if present else item
    except ValueError as error:
        raise UsageError(str(error), where=option) from None


def _replaced(w: Workload, option: str, fields: dict[str, Any]) -> Workload:
    """``w`` with changed arrivals."""
    return _changed(w, option, {"arrivals": _changed(w.arrivals, option, fields)})


def _with_lengths(w: Workload, prompt_tokens: int | None, output_tokens: int | None) -> Workload:
    for option, value in (("--prompt-tokens", prompt_tokens), ("--output-tokens", output_tokens)):
        if value is not None:
            law = _changed(Lengths(distribution="fixed", value=1), option, {"value": value})
            w = _changed(w, option, {option[2:].replace("-", "_"): law})
    return w


def _with_prompts(w: Workload, file: str | None, tokenizer: str | None, ids: bool | None) -> Workload:
    """Real prompts bring their own lengths, so a law of prompt lengths goes with the synthetic ones."""
    base = w.prompts or Prompts()
    fields: dict[str, dict[str, Any]] = {
        "--prompts": {"file": file},
        "--tokenizer": {"tokenizer": tokenizer},
        "--prompt-ids": {"ids": ids or None},
    }
    for option, change in fields.items():
        base = _changed(base, option, change)
    if base == (w.prompts or Prompts()):
        return w
    if file is None:
        return _changed(w, "--tokenizer", {"prompts": base})
    try:
        return replace(w, prompts=base, prompt_tokens=None, prefix=None, sessions=None)
    except ValueError as error:
        raise UsageError(str(error), where="--prompts") from None


def _with_gamma(w: Workload, burstiness: float) -> Workload:
    """Gamma gaps of shape 1 are Poisson's, so asking for burstiness names the law."""
    if w.arrivals.process == "poisson":
        return _replaced(w, "--burstiness", {"process": "gamma", "burstiness": burstiness})
    if w.arrivals.process in CURVES:
        return _replaced(w, "--burstiness", {"gaps": "gamma", "burstiness": burstiness})
    return w


def _with_process(w: Workload, text: str, rate: float | None, concurrency: int | None) -> Workload:
    if text == "trace" or text.startswith("trace:"):
        file = text.removeprefix("trace").removeprefix(":")
        if not file:
            raise UsageError("a trace needs a file", where="--arrivals", remedy="write --arrivals trace:FILE")
        trace = Arrivals(process="trace", file=file)
        return replace(
            w, arrivals=trace, prompt_tokens=None, output_tokens=None, prefix=None, sessions=None, duration=None
        )
    found = read_arrivals(text, concurrency) if text not in _HOMOGENEOUS else None
    if w.output_tokens is None or (w.prompt_tokens is None and (w.prompts is None or w.prompts.file is None)):
        raise UsageError(
            f"workload '{w.name}' takes its lengths from a trace, so '{text}' has none",
            where="--arrivals",
            remedy="add --prompt-tokens N and --output-tokens N",
        )
    return _changed(w, "--arrivals", {"arrivals": found or _at_rate(w, text, rate)})


def _at_rate(w: Workload, process: str, rate: float | None) -> Arrivals:
    rate = rate if rate is not None else w.arrivals.mean_rate
    if rate is None:
        raise UsageError(f"'{process}' needs a rate", where="--arrivals", remedy="add --rate REQUESTS_PER_S")
    kind = cast(Literal["poisson", "constant", "gamma"], process)
    shape = (w.arrivals.burstiness or 1.0) if process == "gamma" else None
    return _changed(Arrivals(process=kind, rate=1.0), "--rate", {"rate": rate, "burstiness": shape})


def _with_duration(w: Workload, duration_s: float) -> Workload:
    """The workload with the measured requests that fill ``duration_s``."""
    if not (duration_s > 0 and math.isfinite(duration_s)):
        raise UsageError(f"duration must be greater than 0, got {duration_s:g} s", where="--duration")
    if w.arrivals.process == "trace":
        from pdbench.workload.traces import count_rows

        w = _replaced(w, "--duration", {"duration_s": duration_s})
        return replace(w, num_requests=count_rows(w.arrivals))
    if w.closed:
        text = format_duration(round(duration_s * NS_PER_S))
        return _closed_for(w, text)
    if w.arrivals.process == "at":
        raise UsageError(f"workload '{w.name}' names its instants one by one", where="--duration")
    return _changed(w, "--duration", {"num_requests": expected_requests(w.arrivals, duration_s)})


def _closed_for(w: Workload, text: str) -> Workload:
    """A closed loop that now ends by time: the number of requests follows from it."""
    try:
        return replace(w, duration=text, num_requests=0)
    except ValueError as error:
        raise UsageError(str(error), where="--duration") from None
