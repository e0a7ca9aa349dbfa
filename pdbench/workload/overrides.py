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
_OF_A_TRACE = ("--time-scale", "--length-scale", "--jitter", "--slice", "--start")
_NEEDS = {"closed": "add --arrivals closed", "trace": "add --arrivals trace:FILE"}


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
    file_duration_s: float | None = None,
) -> Workload:
    """The workload with what the command line asked for; ``None`` leaves a value as it is.

    ``duration_s`` sets the number of requests that fit at the mean rate; for a trace it cuts the slice, and it ends a
    closed loop. ``file_duration_s``: the ``duration`` that the workload's file gave; it holds for other arrivals too,
    but a curve named by ``arrivals`` runs whole. Raises ``UsageError`` naming the option.
    """
    if prompts is not None and prompt_tokens is not None:
        raise UsageError("real prompts have lengths of their own", where="--prompt-tokens", remedy="leave it out")
    only_one_count(duration_s, num_requests)
    before = w
    w = _with_lengths(w, prompt_tokens, output_tokens)
    w = _with_prompts(w, prompts, tokenizer, prompt_ids)
    if arrivals is not None:
        w = _with_process(w, arrivals, rate, concurrency)
        w = _with_lengths(w, prompt_tokens, output_tokens)  # again, for a trace has put its own in their place
    if burstiness is not None:
        w = _with_gamma(w, burstiness)
    changes: dict[str, dict[str, Any]] = {
        "--burstiness": {"burstiness": burstiness},
        "--rate": {"rate": rate},
        "--concurrency": {"concurrency": concurrency},
        "--time-scale": {"time_scale": time_scale},
        "--length-scale": {"length_scale": length_scale},
        "--jitter": {"jitter": jitter},
        "--slice": {"start_row": start_row, "rows": rows},
        "--start": {"start_s": start_s},
    }
    for option, fields in changes.items():
        w = _replaced(w, option, fields)
    if duration_s is not None:
        w = _with_duration(w, duration_s)
    elif num_requests is None and rows is not None:
        num_requests = rows
    elif num_requests is None and (arrivals is not None or w.arrivals != before.arrivals):
        w = _recounted(w, before, file_duration_s, named=arrivals is not None)
    w = _changed(w, "--num-requests", {"num_requests": num_requests})
    w = _changed(w, "--warmup", {"warmup": warmup})
    return _changed(w, "--slo", {"slo": slo})


def only_one_count(duration_s: float | None, num_requests: int | None) -> None:
    """Raises ``UsageError`` where two options say how many requests there are."""
    if duration_s is not None and num_requests is not None:
        raise UsageError("--duration and --num-requests both set the number of requests", remedy="give one")


def _changed(item: T, option: str, fields: dict[str, Any], remedy: str = "") -> T:
    """``item`` with the fields that are not ``None``; a refusal names the option."""
    present = {name: value for name, value in fields.items() if value is not None}
    if present.get("num_requests") == 0:  # in a file a missing number; here a wish
        raise UsageError("num_requests must be greater than 0, got 0", where=option)
    return _made_of(item, option, remedy, **present) if present else item


def _made_of(item: T, option: str, remedy: str = "", **fields: Any) -> T:
    """``item`` with these fields, ``None`` among them; a refusal names the option."""
    try:
        return replace(item, **fields)
    except ValueError as error:
        raise UsageError(str(error), where=option, remedy=remedy) from None


def _replaced(w: Workload, option: str, fields: dict[str, Any]) -> Workload:
    """``w`` with changed arrivals."""
    needs = "closed" if option == "--concurrency" else "trace" if option in _OF_A_TRACE else ""
    remedy = _NEEDS[needs] if needs and w.arrivals.process != needs else ""
    return _changed(w, option, {"arrivals": _changed(w.arrivals, option, fields, remedy)})


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
    return _made_of(w, "--prompts", prompts=base, prompt_tokens=None, prefix=None, sessions=None)


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
        w = _made_of(w, "--arrivals", arrivals=trace, prefix=None, sessions=None, duration=None)
        return _made_of(w, "--arrivals", prompt_tokens=None, output_tokens=None)
    found = read_arrivals(text, concurrency) if text not in _HOMOGENEOUS else None
    if w.output_tokens is None or (w.prompt_tokens is None and (w.prompts is None or w.prompts.file is None)):
        raise UsageError(
            f"workload '{w.name}' takes its lengths from a trace, so '{text}' has none",
            where="--arrivals",
            remedy="add --prompt-tokens N and --output-tokens N",
        )
    found = found or _at_rate(w, text, rate)
    return _made_of(w, "--arrivals", arrivals=found, duration=w.duration if found.process == "closed" else None)


def _at_rate(w: Workload, process: str, rate: float | None) -> Arrivals:
    rate = rate if rate is not None else w.arrivals.mean_rate
    if rate is None:
        raise UsageError(f"'{process}' needs a rate", where="--arrivals", remedy="add --rate REQUESTS_PER_S")
    kind = cast(Literal["poisson", "constant", "gamma"], process)
    shape = (w.arrivals.burstiness or 1.0) if process == "gamma" else None
    return _changed(Arrivals(process=kind, rate=1.0), "--rate", {"rate": rate, "burstiness": shape})


def _with_duration(w: Workload, duration_s: float, where: str = "--duration") -> Workload:
    """The workload with the measured requests that fill ``duration_s``."""
    if not (duration_s > 0 and math.isfinite(duration_s)):
        raise UsageError(f"duration must be greater than 0, got {duration_s:g} s", where=where)
    if w.arrivals.process == "trace":
        from pdbench.workload.traces import count_rows

        w = _replaced(w, where, {"duration_s": duration_s})
        return _changed(w, where, {"num_requests": count_rows(w.arrivals)})
    if w.closed:  # the number of requests follows from the time
        return _made_of(w, where, duration=format_duration(round(duration_s * NS_PER_S)), num_requests=0)
    if w.arrivals.process == "at":
        raise UsageError(f"workload '{w.name}' names its instants one by one", where=where)
    return _changed(w, where, {"num_requests": expected_requests(w, duration_s)})


def _recounted(w: Workload, before: Workload, file_duration_s: float | None, *, named: bool) -> Workload:
    """Other arrivals, and no option that says how many: the whole of a curve that was ``named``; else as long as the
    file says, or until the curve ends by itself as before. Other numbers stay."""
    if named and w.arrivals.process in CURVES:
        return _with_whole_curve(w)
    if file_duration_s is not None and w.arrivals.start_row is None:
        return _with_duration(w, file_duration_s, f"duration of workload '{w.name}'")
    if before.num_requests == expected_requests(before, None):
        return _changed(w, "--burstiness", {"num_requests": expected_requests(w, None)})
    return w


def _with_whole_curve(w: Workload) -> Workload:
    from pdbench.workload.curves import curve_of, whole_s  # brings numpy, which few workloads need this early

    length_s = whole_s(w.arrivals)
    if length_s is None or curve_of(w.arrivals).expected(length_s) < 1:
        what = "a single point does not say how long it goes on" if length_s is None else "too short for one request"
        raise UsageError(f"'{w.arrivals.process}': {what}", where="--arrivals", remedy="add --duration TIME")
    return _changed(w, "--arrivals", {"num_requests": expected_requests(w, length_s)})
