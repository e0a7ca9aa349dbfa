"""How wrong a client was: what it saw against what the server wrote. Pure functions, nanoseconds in, microseconds out.

Two kinds of error, since they answer two questions. **Of events**: each receive stamp minus the write of the same
event (can this client time one token?). **Of percentiles**: the client's P90, say, minus the P90 computed in the same
way from the server's log (is the number in the report true?). Percentiles are nearest-rank and made here, not with
pdbench's own code, so that no mistake is made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.truth.server import Served

Floats = npt.NDArray[np.float64]
QUANTILES = (50, 90, 99)


class Seen(msgspec.Struct, frozen=True):
    """One request as a client saw it (CLOCK_MONOTONIC ns); ``output_tokens`` as the client counted them."""

    request_id: str
    scheduled_ns: int
    sent_ns: int
    chunk_ns: list[int]
    chunk_tokens: list[int] = []
    output_tokens: int | None = None


def quantile(values: npt.ArrayLike, q: float) -> float:
    """Nearest-rank percentile; NaN of nothing."""
    known = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not len(known):
        return float("nan")
    return float(known[max(int(np.ceil(round(q * len(known) / 100, 9))), 1) - 1])


def quantiles_us(values_ns: npt.ArrayLike, qs: Sequence[float] = QUANTILES) -> dict[str, float]:
    """``{"p50": ..}`` in microseconds."""
    return {f"p{q:g}": round(quantile(values_ns, q) / 1e3, 2) for q in qs}


@dataclass(frozen=True, slots=True)
class Latencies:
    """The metrics of one side, pooled over its requests: ns."""

    service_ttft: Floats
    ttft: Floats
    tbt: Floats
    worst_gap: Floats
    tpot: Floats


@dataclass(frozen=True, slots=True)
class Judged:
    """``stamp``: receive stamp minus the instant before the ``send``, one an event; ``outside``: how far the stamp lies
    outside the ``send`` (0 between its start and its end: the truth is no sharper than ``sending``, the time spent in
    it). ``tbt_error``: |gap seen - gap written|. ``dispatch_lag``: sent minus scheduled. ``server_late``: the server's
    own schedule error. ``missing``: streams that the client saw
    otherwise than they were written (another number of events, or another number of tokens)."""

    seen: Latencies
    truth: Latencies
    stamp: Floats
    outside: Floats
    tbt_error: Floats
    dispatch_lag: Floats
    server_late: Floats
    sending: Floats
    missing: list[str] = field(default_factory=list)

    @property
    def events(self) -> int:
        return len(self.stamp)

    def off_us(self, metric: str, q: float) -> float:
        """|client's percentile - the log's|, microseconds."""
        mine, true = getattr(self.seen, metric), getattr(self.truth, metric)
        return abs(quantile(mine, q) - quantile(true, q)) / 1e3

    def table(self) -> dict[str, Any]:
        """Everything as JSON wants it."""
        rows: dict[str, Any] = {
            "events": self.events,
            "missing": len(self.missing),
            "stamp_error_us": quantiles_us(np.abs(self.stamp)),
            "stamp_bias_us": quantiles_us(self.stamp),
            "stamp_outside_send_us": quantiles_us(self.outside),
            "tbt_event_error_us": quantiles_us(self.tbt_error),
            "dispatch_lag_us": quantiles_us(self.dispatch_lag),
            "server_late_us": quantiles_us(self.server_late),
            "server_in_send_us": quantiles_us(self.sending),
        }
        for metric in Latencies.__slots__:
            off = {f"p{q}": round(self.off_us(metric, q), 2) for q in QUANTILES}
            rows[metric] = {
                "seen_us": quantiles_us(getattr(self.seen, metric)),
                "truth_us": quantiles_us(getattr(self.truth, metric)),
                "off_us": off,
            }
        return rows


def truth_of(streams: Sequence[Served]) -> Latencies:
    """The server's own account. TTFT from the intended time: that of a client which sends in time, so it equals the
    service TTFT and a late send counts as error."""
    ttft = np.array([one.service_ttft_ns for one in streams], dtype=np.float64)
    gaps = [np.diff(one.before_ns).astype(np.float64) for one in streams]
    spread = [(one.before_ns[-1] - one.before_ns[0], one.tokens.sum() - one.tokens[0]) for one in streams]
    return Latencies(
        service_ttft=ttft,
        ttft=ttft,
        tbt=np.concatenate(gaps) if gaps else np.zeros(0),
        worst_gap=np.array([gap.max() for gap in gaps if len(gap)]),
        tpot=np.array([time / n for time, n in spread if n > 0]),
    )


def _seen_of(requests: Sequence[Seen]) -> Latencies:
    stamps = [np.asarray(one.chunk_ns, dtype=np.float64) for one in requests]
    gaps = [np.diff(times) for times in stamps]
    tpot = []
    for one, times in zip(requests, stamps, strict=True):
        counts = one.chunk_tokens or [1] * len(times)
        n = (one.output_tokens if one.output_tokens is not None else sum(counts)) - counts[0]
        if n > 0:
            tpot.append((times[-1] - times[0]) / n)
    return Latencies(
        service_ttft=np.array([times[0] - one.sent_ns for one, times in zip(requests, stamps, strict=True)]),
        ttft=np.array([times[0] - one.scheduled_ns for one, times in zip(requests, stamps, strict=True)]),
        tbt=np.concatenate(gaps) if gaps else np.zeros(0),
        worst_gap=np.array([gap.max() for gap in gaps if len(gap)]),
        tpot=np.array(tpot),
    )


def judge(requests: Sequence[Seen], log: Mapping[str, Served]) -> Judged:
    """Compare request by request. A stream that was seen with another number of events than were written, or not at
    all, is ``missing`` and enters no number: report it beside them."""
    kept, streams, missing = [], [], []
    for one in requests:
        served = log.get(one.request_id)
        whole = served is not None and len(served.before_ns) == len(one.chunk_ns) > 0
        if served is None or not whole:
            missing.append(one.request_id)
            continue
        if one.output_tokens is not None and one.output_tokens != int(served.tokens.sum()):
            missing.append(one.request_id)
            continue
        kept.append(one)
        streams.append(served)
    stamp, tbt, outside = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for one, served in zip(kept, streams, strict=True):
        times = np.asarray(one.chunk_ns, dtype=np.int64)
        stamp.append((times - served.before_ns).astype(np.float64))
        outside.append(np.maximum(np.maximum(served.before_ns - times, times - served.after_ns), 0).astype(np.float64))
        tbt.append(np.abs(np.diff(times) - np.diff(served.before_ns)).astype(np.float64))
    return Judged(
        seen=_seen_of(kept),
        truth=truth_of(streams),
        stamp=np.concatenate(stamp),
        outside=np.concatenate(outside),
        tbt_error=np.concatenate(tbt),
        dispatch_lag=np.array([one.sent_ns - one.scheduled_ns for one in kept], dtype=np.float64),
        server_late=np.concatenate([np.zeros(0), *(one.late_ns.astype(np.float64) for one in streams)]),
        sending=np.concatenate([np.zeros(0), *((one.after_ns - one.before_ns).astype(np.float64) for one in streams)]),
        missing=missing,
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A number that was promised, and what came of it. ``at_most`` False: the number must reach the limit."""

    name: str
    limit: float
    measured: float
    unit: str
    at_most: bool = True

    @property
    def met(self) -> bool:
        """NaN (not measured) meets nothing."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    @property
    def line(self) -> str:
        word = "met" if self.met else "missed"
        sign = "<=" if self.at_most else ">="
        return f"{word:7}{self.name}: {self.measured:,.4g} {self.unit} ({sign} {self.limit:,.6g})"

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "limit": self.limit,
            "measured": None if np.isnan(self.measured) else round(self.measured, 4),
            "unit": self.unit,
            "direction": "at most" if self.at_most else "at least",
            "met": self.met,
        }
