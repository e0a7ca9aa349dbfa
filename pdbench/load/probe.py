"""The engine watches itself: an alarm every 10 ms, and a look at its processor time every 100 ms.

An alarm that is served late says how late anything else would have been served at that instant: a read, or a
request that was due. Alarms come evenly, so the share of late ones is the share of instants at which the client was
not there, whether it was busy itself or another process had its core. (Dispatch lag says the same for the instants
of requests only, which are few.) An alarm costs some 15 us: 0.15 % of a core. Alarms keep their instants whatever
happens: one stall makes as many of them late as fell into it, each by what was left of the stall. And only those count
near which something was read or sent: a run that waits for nothing is quick, and would thin the late ones out.

Processor time over wall time says whether the client was near its end; the scheduler's own account of how long the
process was ready to run and did not (``schedstat``, Linux) says whether another one had the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, process_time_ns

from pdbench.load.lag import LagLog
from pdbench.load.timer import make_alarm
from pdbench.measure.audit import Spread

PERIOD_NS = 10_000_000
WINDOW_NS = 100_000_000
_AWAY_NS = 1_000_000  # an alarm later than this is remembered; a wake-up alone takes less
_REMEMBERED = 10_000
_AROUND_NS = 100_000_000  # an alarm counts from this long after a read or a send, and right before one
_PER_MILLE = 1000  # shares are counted in thousandths


class SelfProbe:
    """Runs from its making until closed; then its figures stand. ``activity``: reads and sends so far; without it
    every alarm counts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cpu_ns: Callable[[], int] = process_time_ns,
        activity: Callable[[], int] | None = None,
    ) -> None:
        self.loop_lag = LagLog()
        self._lags = _ActiveLags(self.loop_lag, activity)
        self.cpu_share = LagLog()
        self._cpu_ns = cpu_ns
        self._at_ns = monotonic_ns() + PERIOD_NS
        self._window_ns, self._window_cpu_ns = monotonic_ns(), cpu_ns()
        self._waited = _Since(waited_ns)
        self._ran = _Since(process_time_ns)
        self._machine = _Since(stolen_jiffies, all_jiffies)
        self.cpu_wait_share: float | None = None
        self.steal_share: float | None = None
        self._aways: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)  # an alarm's instant, and when it was served
        self._closed = False
        self._alarm = make_alarm(loop, self._ring)
        self._alarm.set(self._at_ns)

    def _ring(self) -> None:
        now = monotonic_ns()
        self._lags.look(now)
        if now - self._at_ns > _AWAY_NS:
            self._aways.append((self._at_ns, now))
        while self._at_ns <= now:
            self._lags.add(now - self._at_ns)
            self._at_ns += PERIOD_NS
        self._alarm.set(self._at_ns)
        if now - self._window_ns >= WINDOW_NS:
            self._window(now)

    def _window(self, now: int) -> None:
        cpu_ns = self._cpu_ns()
        self.cpu_share.add(_PER_MILLE * (cpu_ns - self._window_cpu_ns) // (now - self._window_ns))
        self._window_ns, self._window_cpu_ns = now, cpu_ns

    def away_ns(self, read_ns: int) -> int:
        """How long the client had not been there when it read at this instant, as far as an alarm fell into that time;
        0 where none was late."""
        for at_ns, back_ns in reversed(self._aways):
            if back_ns + PERIOD_NS < read_ns:
                break
            if at_ns <= read_ns:
                return back_ns - at_ns
        return 0

    def close(self) -> None:
        """Take the last figures; harmless when closed."""
        if self._closed:
            return
        self._closed = True
        self._alarm.close()
        self._lags.look(monotonic_ns())
        ran, waited = self._ran.delta()[0], self._waited.delta()[0]
        if ran is not None and waited is not None and ran + waited > 0:
            self.cpu_wait_share = waited / (ran + waited)
        stolen, total = self._machine.delta()
        if stolen is not None and total:
            self.steal_share = stolen / total

    def cpu_shares(self) -> Spread | None:
        """Over the windows; None before the first is full."""
        found = self.cpu_share.summary()
        if found.p50_ms is None or found.p99_ms is None or found.max_ms is None:
            return None
        return Spread(*(value * 1e6 / _PER_MILLE for value in (found.p50_ms, found.p99_ms, found.max_ms)))


class _ActiveLags:
    """Lags of alarms on their way into a log. What came in during a stall is read right *after* the late alarm: so each
    waits for the next look to know whether anything happened around it."""

    def __init__(self, log: LagLog, activity: Callable[[], int] | None) -> None:
        self._log = log
        self._activity = activity
        self._seen = activity() if activity is not None else 0
        self._active_ns = -_AROUND_NS
        self._held: list[int] = []

    def add(self, lag_ns: int) -> None:
        self._held.append(lag_ns)

    def look(self, now: int) -> None:
        """Decide about what is held."""
        if self._activity is not None and (count := self._activity()) != self._seen:
            self._seen, self._active_ns = count, now
        if self._activity is None or now - self._active_ns < _AROUND_NS:
            self._log.extend(self._held)
        self._held.clear()


class _Since:
    """Counters that only grow, where the system has them."""

    def __init__(self, *counters: Callable[[], int | None]) -> None:
        self._counters = counters
        self._first = [counter() for counter in counters]

    def delta(self) -> list[int | None]:
        now = [counter() for counter in self._counters]
        return [None if a is None or b is None else b - a for a, b in zip(self._first, now, strict=True)]


def waited_ns() -> int | None:
    """How long this process's first thread was ready to run and did not; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/schedstat").read_bytes().split()[1])
    return None


def stolen_jiffies() -> int | None:
    """Processor time that the hypervisor gave to others, all cores together."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_cpu_line()[7])
    return None


def all_jiffies() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return sum(int(value) for value in _cpu_line()[:8])
    return None


def _cpu_line() -> list[bytes]:
    return Path("/proc/stat").read_bytes().split(b"\n", 1)[0].split()[1:]


def peak_rss_bytes() -> int:
    """The most memory this process held. ``getrusage`` would count the process it was forked from."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_bytes()
        return int(status.split(b"VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine_load() -> float | None:
    """Runnable tasks over the last minute."""
    with contextlib.suppress(OSError):
        return os.getloadavg()[0]
    return None
