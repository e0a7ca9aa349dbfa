"""How late the event loop is, where the kernel's stamps cannot tell: an alarm every 10 ms."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

from pdbench.load.lag import LagLog
from pdbench.load.timer import make_alarm

PERIOD_NS = 10_000_000


class LagProbe:
    """Notes by how much each alarm came late; runs until closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: LagLog) -> None:
        self._log = log
        self._at_ns = monotonic_ns() + PERIOD_NS
        self._alarm = make_alarm(loop, self._ring)
        self._alarm.set(self._at_ns)

    def _ring(self) -> None:
        now = monotonic_ns()
        self._log.add(now - self._at_ns)
        self._at_ns = now + PERIOD_NS
        self._alarm.set(self._at_ns)

    def close(self) -> None:
        self._alarm.close()
