"""Work that may wait, done in the moments when no request is due.

Making a prompt or parsing a finished answer takes up to a few milliseconds. Done at a bad moment it delays
the next request; so each job is small, and none starts when a request is due within the time that such jobs
took lately. When too much waits, or the run is ending, work goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol

GUARD_NS = 400_000  # a 512-token prompt or a 64-token answer takes less than this
MAX_GUARD_NS = 5_000_000
CROWDED = 512  # jobs waiting: beyond this memory matters more than a late request


class HasDue(Protocol):
    due_ns: int


class IdleWork:
    """First in, first out. ``kick`` after a request was sent: there may be time again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pacer: HasDue) -> None:
        self._loop = loop
        self._pacer = pacer
        self._jobs: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._guard_ns = GUARD_NS

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        self.kick()

    def kick(self) -> None:
        if self._jobs and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if not self._jobs:
            return
        began = monotonic_ns()
        if self._pacer.due_ns - began < self._guard_ns and len(self._jobs) < CROWDED:
            return  # the request that is due soon will kick
        self._jobs.popleft()()
        took_ns = monotonic_ns() - began
        # Up at once, down slowly: a job that was preempted is forgotten after some dozens of others.
        self._guard_ns = min(max(took_ns, self._guard_ns * 15 // 16, GUARD_NS), MAX_GUARD_NS)
        self.kick()

    def finish(self) -> None:
        """Do everything now."""
        while self._jobs:
            self._jobs.popleft()()
