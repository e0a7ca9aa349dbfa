"""From what several engines say to what one would have said. Pure.

Counters add up, histograms merge, and of lags the worst counts: percentiles of parts do not make a percentile of
the whole, and a fleet is as late as its latest worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pdbench.load.delta import Clock, Delta, Done, EngineFacts
from pdbench.load.histogram import LiveHistogram
from pdbench.load.lag import LagSummary

_SUMS = ("planned", "offered", "sent", "ok", "failed", "in_flight", "waiting", "tokens")
_FACT_SUMS = frozenset(
    {"cpu_s", "connections_opened", "connections_failed", "retried", "late_bodies", "reads", "peak_rss_bytes"}
)


def worst_lag(lags: Sequence[LagSummary]) -> LagSummary:
    """Counts add up; of every percentile the largest."""
    return LagSummary(
        count=sum(lag.count for lag in lags),
        p50_ms=_largest([lag.p50_ms for lag in lags]),
        p90_ms=_largest([lag.p90_ms for lag in lags]),
        p99_ms=_largest([lag.p99_ms for lag in lags]),
        max_ms=_largest([lag.max_ms for lag in lags]),
    )


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


class DeltaMerger:
    """``add`` what a worker says, ``take`` once a second what all said since."""

    def __init__(self) -> None:
        self._latest: dict[int, Delta] = {}
        self._ttft, self._tbt = LiveHistogram(), LiveHistogram()
        self._done: list[Done] = []
        self._fresh = False

    def add(self, rank: int, delta: Delta) -> None:
        self._latest[rank] = delta
        self._ttft.merge(delta.ttft_hdr)
        self._tbt.merge(delta.tbt_hdr)
        self._done += delta.done
        self._fresh = True

    def lose(self, rank: int) -> None:
        """A worker is gone, and with it what it had in flight; what it had sent and got back stays counted."""
        if (last := self._latest.get(rank)) is not None:
            self._latest[rank] = msgspec.structs.replace(last, in_flight=0, waiting=0)
            self._fresh = True

    def take(self) -> Delta | None:
        """One delta of the whole fleet; None if nothing came since the last one."""
        if not self._fresh:
            return None
        latest = list(self._latest.values())
        merged = msgspec.structs.replace(
            latest[0],
            **{name: sum(getattr(delta, name) for delta in latest) for name in _SUMS},
            t_s=max(delta.t_s for delta in latest),
            dispatch_lag=worst_lag([delta.dispatch_lag for delta in latest]),
            client_lag=worst_lag([delta.client_lag for delta in latest]),
            ttft_hdr=self._ttft.encode(),
            tbt_hdr=self._tbt.encode(),
            done=self._done,
        )
        self._ttft, self._tbt, self._done, self._fresh = LiveHistogram(), LiveHistogram(), [], False
        return merged


def merge_facts(all_facts: Sequence[EngineFacts]) -> EngineFacts | None:
    """What a fleet did: work adds up, everything else is that of the worst worker, names are listed."""
    if not all_facts:
        return None
    names = [field.name for field in msgspec.structs.fields(EngineFacts)]
    return EngineFacts(**{name: _merged(name, [getattr(facts, name) for facts in all_facts]) for name in names})


def coarser_clock(clocks: Sequence[Clock | None]) -> Clock | None:
    """One engine on the user clock makes all stamps as good as its own; None where no engine came to say."""
    known = {clock for clock in clocks if clock is not None}
    return None if not known else "user" if "user" in known else "kernel"


def _merged(name: str, all_values: Sequence[Any]) -> Any:
    values = [value for value in all_values if value is not None]
    if not values:
        return None
    first = values[0]
    if isinstance(first, LagSummary):
        return worst_lag(values)
    if name == "clock":
        return coarser_clock(values)
    if isinstance(first, str):
        return ", ".join(dict.fromkeys(values))
    if name in _FACT_SUMS:
        return sum(values)
    if isinstance(first, int | float):
        return max(values, key=abs)
    names = [f.name for f in msgspec.structs.fields(first)]
    return type(first)(**{name: _merged(name, [getattr(value, name) for value in values]) for name in names})
