"""Work that may wait, done in the moments when no request is due.

Making a prompt or parsing a finished answer takes up to a few milliseconds. Done at a bad moment it delays
the next request; so each job is small, and none starts when a request is due within the guard. When too much
waits, or the run is ending, work goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol

GUARD_NS = 400_000  # a 512-token prompt or a 64-token answer takes less than this
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
        if self._pacer.due_ns - monotonic_ns() < GUARD_NS and len(self._jobs) < CROWDED:
            return  # the request that is due soon will kick
        self._jobs.popleft()()
        self.kick()

    def finish(self) -> None:
        """Do everything now."""
        while self._jobs:
            self._jobs.popleft()()
