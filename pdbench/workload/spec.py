"""What a workload file says: when requests arrive, how long they are, how many, and under which SLO.

The structs refuse what cannot be meant: unknown keys, negative or zero rates, counts and lengths, NaN and
infinity, keys of another law. They are read by ``msgspec.convert``, which puts the path of the key behind the
message of a ``ValueError`` raised here, so messages start with the name of the field.

    arrivals: {process: poisson, rate: 2.0}
    prompt_tokens: {distribution: fixed, value: 512}
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar, cast, get_args

import msgspec
from msgspec.structs import replace

from pdbench.errors import UsageError, did_you_mean

Process = Literal["poisson", "constant", "gamma", "trace", "at"]
Distribution = Literal["fixed", "uniform", "lognormal", "list"]

T = TypeVar("T", bound=msgspec.Struct)
LENGTH_MAX = 10_000_000  # far above any model's context; keeps lengths well inside int32
# Which optional keys belong to which law; every other one is refused there.
_ARRIVAL_KEYS: dict[str, frozenset[str]] = {
    "poisson": frozenset({"rate"}),
    "constant": frozenset({"rate"}),
    "gamma": frozenset({"rate", "burstiness"}),
    "trace": frozenset({"rate", "file", "format", "start_row", "rows", "start_s", "duration_s"}),
    "at": frozenset({"times_ms"}),
}
_LENGTH_KEYS: dict[str, frozenset[str]] = {
    "fixed": frozenset({"value"}),
    "uniform": frozenset({"low", "high"}),
    "lognormal": frozenset({"median", "sigma", "low", "high"}),
    "list": frozenset({"values"}),
}


def _positive(name: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be greater than 0, got {value:g}")


def _not_negative(name: str, value: float | None) -> None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must not be negative, got {value:g}")


def _length(name: str, value: int | None) -> None:
    _positive(name, value)
    if value is not None and value > LENGTH_MAX:
        raise ValueError(f"{name} must be at most {LENGTH_MAX}, got {value}")


def _only(item: msgspec.Struct, kind: str, allowed: dict[str, frozenset[str]]) -> None:
    """Refuse a key that another law would read: silence would mean a different workload than was written."""
    for name in sorted(frozenset().union(*allowed.values()) - allowed[kind]):
        if getattr(item, name) is not None:
            raise ValueError(f"{name} does not apply to '{kind}'")


def _require(item: msgspec.Struct, kind: str, *names: str) -> None:
    for name in names:
        if getattr(item, name) is None:
            raise ValueError(f"{name} is required for '{kind}'")


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When requests are due.

    ``poisson``, ``constant``, ``gamma``: ``rate`` requests/s; ``burstiness`` is the shape of the gamma law
    of the gaps (1 is Poisson, below 1 is burstier). ``trace``: ``file`` replayed, ``time_scale`` multiplies
    its gaps and ``length_scale`` its lengths, or ``rate`` rescales time to that mean rate; sliced by rows
    or by seconds. ``at``: explicit instants in ms, for workloads that teach.
    """

    process: Process
    rate: float | None = None
    burstiness: float | None = None
    file: str | None = None
    format: Literal["azure"] | None = None
    time_scale: float = 1.0
    length_scale: float = 1.0
    start_row: int | None = None
    rows: int | None = None
    start_s: float | None = None
    duration_s: float | None = None
    times_ms: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _only(self, self.process, _ARRIVAL_KEYS)
        for name in ("rate", "burstiness", "time_scale", "length_scale", "rows", "duration_s"):
            _positive(name, getattr(self, name))
        for name in ("start_row", "start_s"):
            _not_negative(name, getattr(self, name))
        if self.process in ("poisson", "constant", "gamma"):
            _require(self, self.process, "rate")
        elif self.process == "trace":
            self._check_trace()
        else:
            self._check_instants()
        if self.process != "trace" and (self.time_scale != 1 or self.length_scale != 1):
            name = "time_scale" if self.time_scale != 1 else "length_scale"
            raise ValueError(f"{name} does not apply to '{self.process}'")

    def _check_trace(self) -> None:
        _require(self, "trace", "file")
        by_rows = self.start_row is not None or self.rows is not None
        if by_rows and (self.start_s is not None or self.duration_s is not None):
            raise ValueError("start_row and rows cannot be given with start_s and duration_s: slice one way")
        if self.rate is not None and self.time_scale != 1:
            raise ValueError("rate and time_scale both rescale the trace's time: give one of them")

    def _check_instants(self) -> None:
        _require(self, "at", "times_ms")
        times = self.times_ms or ()
        if not times:
            raise ValueError("times_ms must not be empty")
        for time in times:
            _not_negative("times_ms", time)
        if list(times) != sorted(times):
            raise ValueError("times_ms must not go backwards")


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many tokens: ``fixed`` value; ``uniform`` low..high, both included; ``lognormal`` around
    ``median`` with ``sigma`` (of the natural log), clipped to low..high; ``list``: value i for request
    i."""

    distribution: Distribution
    value: int | None = None
    low: int | None = None
    high: int | None = None
    median: float | None = None
    sigma: float | None = None
    values: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _only(self, self.distribution, _LENGTH_KEYS)
        required = _LENGTH_KEYS[self.distribution] - ({"low"} if self.distribution == "lognormal" else set())
        _require(self, self.distribution, *sorted(required))
        for name in ("value", "low", "high"):
            _length(name, getattr(self, name))
        _positive("median", self.median)
        _not_negative("sigma", self.sigma)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must not be greater than high, got {self.low} and {self.high}")
        if self.values is not None and not self.values:
            raise ValueError("values must not be empty")
        for value in self.values or ():
            _length("values", value)

    @property
    def longest(self) -> int:
        """The longest length this law can give."""
        return max(self.values) if self.values else int(self.value or self.high or 1)


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How servers are asked to sample. Greedy, and to the planned length, so that arms do the same work."""

    temperature: float = 0.0
    ignore_eos: bool = True

    def __post_init__(self) -> None:
        _not_negative("temperature", self.temperature)


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One traffic pattern and the SLO it is judged by.

    ``num_requests`` counts measured requests; ``warmup`` requests are extra. For a trace it is a limit: the
    plan may hold fewer. Lengths given beside a trace replace the trace's own.
    """

    name: str
    description: str = ""
    arrivals: Arrivals
    prompt_tokens: Lengths | None = None
    output_tokens: Lengths | None = None
    num_requests: int
    warmup: int = 10
    slo: list[str] = []
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        _positive("num_requests", self.num_requests)
        if self.num_requests > LENGTH_MAX:
            raise ValueError(f"num_requests must be at most {LENGTH_MAX}, got {self.num_requests}")
        _not_negative("warmup", self.warmup)
        for name in ("prompt_tokens", "output_tokens"):
            self._check_lengths(name, getattr(self, name))
        if self.arrivals.times_ms is not None and len(self.arrivals.times_ms) < self.num_requests:
            raise ValueError(
                f"num_requests is {self.num_requests} but arrivals.times_ms has {len(self.arrivals.times_ms)}"
            )
        if any(not text.strip() for text in self.slo):
            raise ValueError("slo must not hold an empty objective")

    def _check_lengths(self, name: str, lengths: Lengths | None) -> None:
        if lengths is None:
            if self.arrivals.process != "trace":
                raise ValueError(f"{name} is required unless arrivals.process is 'trace'")
        elif lengths.values is not None and len(lengths.values) < self.num_requests:
            have = len(lengths.values)
            raise ValueError(f"num_requests is {self.num_requests} but {name}.values has {have}")


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
