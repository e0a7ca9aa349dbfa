"""What falls due when: the two ways to offer a plan. Pure: the clock is an argument.

Open loop: every request has its instant, whatever the server does. Closed loop: so many streams are kept open, and
a request is due at the instant a stream is free for it: when the answer before it ended (by the kernel's stamp, where
there is one, so that a client that is late to notice shows as late), or when the number of streams went up. Where the
number goes down, streams end with the answers they have.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Protocol

NEVER_NS = 1 << 62


class Offer(Protocol):
    """Gives out due instants, one a request, in the plan's order."""

    due_ns: int  # when the next request falls due, or something changes; NEVER_NS: nothing is known to come
    last_ns: int  # the last instant at which a request fell or may fall due; NEVER_NS: not known yet
    over: bool  # nothing will fall due any more

    def pop(self, now: int) -> int | None:
        """The due instant of the next request, if it is due."""

    def freed(self, at_ns: int) -> None:
        """A request ended."""

    def stop(self) -> None:
        """Nothing more is due."""

    def retime(self, at_ns: int, factor: float, now: int) -> int:
        """From ``at_ns`` (from ``now``, if that is later) on, what is left comes ``factor`` times as fast. The instant
        that it took."""

    def coming(self, until_ns: int) -> int:
        """How many requests fall due up to an instant, as far as is known."""


class OpenLoop:
    """See the module's docstring."""

    def __init__(self, due_ns: Sequence[int]) -> None:
        self._due = list(due_ns)
        self._at = 0
        self.due_ns = due_ns[0]
        self.last_ns = due_ns[-1]
        self.over = False

    def pop(self, now: int) -> int | None:
        due = self.due_ns
        if due > now or self.over:
            return None
        self._at += 1
        self.over = self._at == len(self._due)
        self.due_ns = NEVER_NS if self.over else self._due[self._at]
        return due

    def freed(self, at_ns: int) -> None:
        """Changes nothing: that is what an open loop is."""

    def stop(self) -> None:
        self.over = True
        self.due_ns = NEVER_NS

    def retime(self, at_ns: int, factor: float, now: int) -> int:
        """Stretches the instants that are left about one instant: order and number stay, and none moves to before it.
        What was due by then and has not been given out yet stays due when it was."""
        if self.over:
            return at_ns
        about = max(at_ns, now)
        first = bisect_right(self._due, about, self._at)
        self._due[first:] = [about + round((due - about) / factor) for due in self._due[first:]]
        self.due_ns, self.last_ns = self._due[self._at], self._due[-1]
        return about

    def coming(self, until_ns: int) -> int:
        return 0 if self.over else bisect_right(self._due, until_ns, self._at) - self._at


class ClosedLoop:
    """``curve``: (from this instant, keep so many streams open), in order; ``count`` requests in all.

    Over when all requests were given out, or when the curve's last entry, of 0 streams, is reached.
    """

    def __init__(self, curve: Sequence[tuple[int, int]], count: int) -> None:
        self._curve = deque(curve)
        self._left = count
        self._streams = 0  # wanted now
        self._busy = 0
        self._free: deque[int] = deque()  # since when each free stream has been free
        self.due_ns = curve[0][0]
        self.last_ns = curve[-1][0] if curve[-1][1] == 0 else NEVER_NS
        self.over = False

    def pop(self, now: int) -> int | None:
        while self._curve and self._curve[0][0] <= now and not self.over:
            self._turn(*self._curve.popleft())
        due = self._free.popleft() if self._free and not self.over else None
        if due is not None:
            self._busy += 1
            self._left -= 1
            if self._left == 0:
                self.stop()
                self.last_ns = due
        self._look_ahead()
        return due

    def _turn(self, at_ns: int, streams: int) -> None:
        self._streams = streams
        open_now = self._busy + len(self._free)
        self._free.extend([at_ns] * (streams - open_now))
        while self._free and self._busy + len(self._free) > streams:
            self._free.pop()
        if streams == 0 and not self._curve:
            self.stop()

    def _look_ahead(self) -> None:
        if self.over:
            self.due_ns = NEVER_NS
        elif self._free:
            self.due_ns = self._free[0]
        else:
            self.due_ns = self._curve[0][0] if self._curve else NEVER_NS

    def freed(self, at_ns: int) -> None:
        self._busy -= 1
        if not self.over and self._busy + len(self._free) < self._streams:
            self._free.append(at_ns)
        self._look_ahead()

    def stop(self) -> None:
        self.over = True
        self._free.clear()
        self._curve.clear()
        self.due_ns = NEVER_NS

    def retime(self, at_ns: int, factor: float, now: int) -> int:
        """Changes nothing: a closed loop has no rate."""
        del factor, now
        return at_ns

    def coming(self, until_ns: int) -> int:
        if self.over:
            return 0
        wanted = max([self._streams, *(streams for at_ns, streams in self._curve if at_ns <= until_ns)])
        return max(0, min(wanted - self._busy, self._left))
