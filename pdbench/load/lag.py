"""Lags of the load generator itself, kept in bounded memory whatever the length of the run.

Two are watched. Dispatch lag: how long after its scheduled instant a request was written to its socket.
Client lag: how long bytes that the kernel had stamped waited for this process to read them (on the user
clock, where that cannot be seen, how late a timer fires). They go into buckets of three significant digits,
as an HdrHistogram has them; the exact values stay in the records.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class LagSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in ms, within 0.1 %; all ``None`` when nothing was seen."""

    count: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None


def bucket(value: int) -> int:
    """The lower edge of the bucket of ``value``: its 11 leading bits, at least 0."""
    if value <= 0:
        return 0
    shift = value.bit_length() - 11
    return value if shift <= 0 else (value >> shift) << shift


class LagLog:
    """Counts of lags (ns) by bucket."""

    __slots__ = ("_counts", "_max")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._max = 0

    def add(self, lag_ns: int) -> None:
        key = bucket(lag_ns)
        self._counts[key] = self._counts.get(key, 0) + 1
        if lag_ns > self._max:
            self._max = lag_ns

    def extend(self, lags_ns: Iterable[int]) -> None:
        for lag_ns in lags_ns:
            self.add(lag_ns)

    def summary(self) -> LagSummary:
        """Nearest-rank percentiles."""
        total = sum(self._counts.values())
        if total == 0:
            return LagSummary()
        found: list[float] = []
        wanted = [-(-total * q // 100) for q in (50, 90, 99)]
        seen = 0
        for key in sorted(self._counts):
            seen += self._counts[key]
            while len(found) < len(wanted) and seen >= wanted[len(found)]:
                found.append(key / 1e6)
        p50, p90, p99 = found
        return LagSummary(count=total, p50_ms=p50, p90_ms=p90, p99_ms=p99, max_ms=self._max / 1e6)
