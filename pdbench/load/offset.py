"""The clock of another host, seen from ours. Pure.

A ping notes our clock, its answer theirs, its return ours again. The answer was given somewhere between, so
theirs minus the middle of ours is off by at most half the round trip; of many, the quickest says most. (Cristian,
"Probabilistic clock synchronization", 1989.)

Only *instants* are carried over, by one constant a worker and run. A duration never crosses hosts: both ends of
each were stamped by one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pdbench.measure.records import RequestRecord


@dataclass(frozen=True, slots=True)
class Offset:
    """Their clock minus ours, and the round trip it was read from (its half bounds the error)."""

    offset_ns: int = 0
    rtt_ns: int = 0


def estimate(pings: Iterable[tuple[int, int, int]]) -> Offset | None:
    """From (our clock when asked, theirs when answering, ours when the answer came); None without any."""
    quickest = min(pings, key=lambda ping: ping[2] - ping[0], default=None)
    if quickest is None:
        return None
    asked, theirs, came = quickest
    return Offset(theirs - (asked + came) // 2, came - asked)


def is_same_clock(measured: Offset, our_boot: str, their_boot: str) -> bool:
    """One boot of one kernel, and no more apart than the measurement can tell: it is the same clock.

    The second condition is for containers with a time namespace of their own.
    """
    return bool(our_boot) and our_boot == their_boot and abs(measured.offset_ns) <= measured.rtt_ns


def moved(record: RequestRecord, offset_ns: int) -> RequestRecord:
    """The record with its instants on our clock. Changes it in place."""
    if offset_ns:
        record.scheduled_ns -= offset_ns
        record.sent_ns = None if record.sent_ns is None else record.sent_ns - offset_ns
        record.end_ns = None if record.end_ns is None else record.end_ns - offset_ns
        record.chunk_ns = [stamp - offset_ns for stamp in record.chunk_ns]
    return record
