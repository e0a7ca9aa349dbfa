"""From the kernel's receive stamp to CLOCK_MONOTONIC.

The kernel stamps packets with CLOCK_REALTIME; everything in pdbench is CLOCK_MONOTONIC. The two differ by a
constant until somebody sets the time of day (slewing by NTP moves both alike). One reading of the difference
is wrong by however long the process was interrupted between two clock calls, and always in one direction
per bracket: so it is read many times as monotonic, real, monotonic, and the reading with the shortest
bracket wins. It is re-taken during the run; how far it moved is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable

READS = 64  # about 10 us in all; the shortest bracket of 64 is within 0.1 us of the best on an idle core


def measure_offset_ns(
    reads: int = READS,
    mono: Callable[[], int] = time.monotonic_ns,
    real: Callable[[], int] = time.time_ns,
) -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC in ns, from the tightest of ``reads`` brackets."""
    best, offset = None, 0
    for _ in range(reads):
        before = mono()
        stamp = real()
        after = mono()
        if best is None or after - before < best:
            best = after - before
            offset = stamp - (before + after) // 2
    return offset


class ClockOffset:
    """The offset in use, and how far re-measuring ever moved it (``drift_ns``)."""

    __slots__ = ("_measure", "drift_ns", "first_ns", "offset_ns")

    def __init__(self, measure: Callable[[], int] = measure_offset_ns) -> None:
        self._measure = measure
        self.first_ns = self.offset_ns = measure()
        self.drift_ns = 0

    def retake(self) -> None:
        self.offset_ns = self._measure()
        self.drift_ns = max(self.drift_ns, abs(self.offset_ns - self.first_ns))

    def monotonic_ns(self, stamp_ns: int, read_ns: int) -> int:
        """``stamp_ns`` (real time) as monotonic time; ``read_ns`` is when userspace had the bytes.

        A packet cannot arrive after it was read: then the time of day was stepped, the offset is taken
        anew, and what is still impossible becomes the time of the read.
        """
        arrived = stamp_ns - self.offset_ns
        if arrived <= read_ns:
            return arrived
        self.retake()
        return min(stamp_ns - self.offset_ns, read_ns)
