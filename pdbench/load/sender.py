"""Every request goes out when it falls due (``offer.py``: open loop or closed).

Nothing on the way of a due request waits: its bytes are made, its connection is open, the alarm rings at the
nanosecond, and reads let it pass between them. ``sent_ns`` is taken right before the socket write, and how long
the write took right after: the process can lose its core in between, and then the dispatch lag must say so. What
follows the end of a request (parsing, journal) is left to idle moments.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from pdbench.load.body import BodyMaker
from pdbench.load.http import Exchange, HttpConnection
from pdbench.load.idle import IdleWork
from pdbench.load.job import Job
from pdbench.load.lag import LagLog
from pdbench.load.offer import NEVER_NS, ClosedLoop, Offer, OpenLoop
from pdbench.load.pool import Pool
from pdbench.load.timer import make_alarm
from pdbench.measure.records import Status

LOOKAHEAD = 256  # bodies made ahead: more than any burst a schedule of open-loop arrivals is likely to hold
LOOKAHEAD_LOW = 32  # below this a body is made at any moment: made on the send path it would cost more
LOOKAHEAD_BYTES = 32 << 20
_PREFILL_NS = 500_000_000
_TICK_S = 0.05  # how finely time-outs are kept; far below any time-out worth setting
_SPARE_MIN, _SPARE_MAX = 8, 256
_SPARE_AHEAD_NS = 1_000_000_000
_STALE_NS = 1_000_000_000  # a connection idle this long may have been closed by the server


class Flight:
    """One request from its instant to its end. ``status`` ``""`` means: the answer decides."""

    __slots__ = (
        "data",
        "end_ns",
        "error",
        "exchange",
        "position",
        "retried",
        "scheduled_ns",
        "sent_ns",
        "status",
        "write_ns",
    )

    def __init__(self, position: int, scheduled_ns: int, data: bytes) -> None:
        self.position = position
        self.scheduled_ns = scheduled_ns
        self.data = data
        self.sent_ns: int | None = None
        self.write_ns = 0
        self.exchange: Exchange | None = None
        self.retried = False
        self.status: Status | None = None
        self.error = ""
        self.end_ns = 0


class Sender:
    """Offers the plan; reports each ended flight once, in an idle moment."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        job: Job,
        bodies: BodyMaker,
        on_flight_end: Callable[[Flight], None],
        on_all_ended: Callable[[], None],
        lead_ns: int = 0,
    ) -> None:
        self._loop = loop
        self._job = job
        self._bodies = bodies
        self._on_flight_end = on_flight_end
        self._on_all_ended = on_all_ended
        self._offer: Offer = _offer(job, 0)  # until t0 is known: how many connections to open
        self._ahead = max(LOOKAHEAD, self._offer.coming(0))
        self._made: deque[bytes] = deque()
        self._made_bytes = 0
        self._making = False
        self._open: dict[int, Flight] = {}  # in order of their instants
        self._connections: dict[int, HttpConnection] = {}  # of the flights that were sent
        self._waiting: deque[Flight] = deque()
        self._timeout_ns = round(job.request_timeout_s * 1e9)
        self._drain_ns = NEVER_NS
        self._over = False
        self._closes = False  # the server ends its connections with its answers
        self._tick: asyncio.TimerHandle | None = None
        self.pool: Pool
        self.due_ns = NEVER_NS
        self.offered = 0
        self.sent = 0
        self.retried = 0
        self.late_bodies = 0
        self.dispatch_lag = LagLog()
        self.idle = IdleWork(loop, self)
        self._alarm = make_alarm(loop, self.fire, lead_ns)

    @property
    def timer(self) -> str:
        return self._alarm.kind

    @property
    def in_flight(self) -> int:
        return len(self._connections)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def prepare(self) -> int:
        """Make the first bodies; how many connections to open before t0."""
        limit = monotonic_ns() + _PREFILL_NS
        while self._wants_bodies() and monotonic_ns() < limit:
            self._make_body()
        return self._spare(0)

    def start(self, t0_ns: int) -> None:
        self._offer = _offer(self._job, t0_ns)
        self._look_ahead()
        self._refill()
        self._housekeep()

    def stop(self) -> None:
        """Offer nothing more; what is open becomes ``unfinished``."""
        self._offer.stop()
        self.due_ns = NEVER_NS
        self._drain_ns = 0
        self._expire(monotonic_ns())
        self._check_over()

    def retime(self, at_ns: int, factor: float) -> int:
        """See ``Offer.retime``. The end of the drain moves with the last instant, unless it is all being stopped."""
        took_ns = self._offer.retime(at_ns, factor, monotonic_ns())
        if self._drain_ns:
            self._drain_ns = NEVER_NS
            self._look_ahead()
        return took_ns

    # sending

    def fire(self) -> None:
        """Send what is due (the alarm rings, or a read found the time come)."""
        while (due_ns := self._offer.pop(monotonic_ns())) is not None:
            at = self.offered
            self.offered = at + 1
            flight = Flight(at, due_ns, self._next_body(at))
            self._open[at] = flight
            self._waiting.append(flight)
            self._pump()
        self._look_ahead()
        self._refill()
        self.idle.kick()
        self._check_over()

    def _look_ahead(self) -> None:
        self.due_ns = self._offer.due_ns
        if self.due_ns < NEVER_NS:
            self._alarm.set(self.due_ns)
        if self._drain_ns == NEVER_NS and self._offer.last_ns < NEVER_NS:
            self._drain_ns = self._offer.last_ns + round(self._job.drain_timeout_s * 1e9)

    def _pump(self) -> None:
        """Send waiting requests while there are slots and connections."""
        slots = 0 if self._drained(monotonic_ns()) else self._slots()
        while self._waiting and slots > 0:
            connection = self.pool.take()
            if connection is None:
                self.pool.open_for(min(len(self._waiting), slots))
                return
            self._send(self._waiting.popleft(), connection)
            slots -= 1

    def _slots(self) -> int:
        limit = self._job.max_concurrency
        return NEVER_NS if limit is None else limit - len(self._connections)

    def _send(self, flight: Flight, connection: HttpConnection) -> None:
        flight.exchange = Exchange(flight.position)
        flight.sent_ns, done_ns = connection.send(flight.exchange, flight.data)
        flight.write_ns = done_ns - flight.sent_ns
        self._connections[flight.position] = connection
        self.sent += not flight.retried
        self.dispatch_lag.add(done_ns - flight.scheduled_ns)

    # bodies

    def _next_body(self, position: int) -> bytes:
        if not self._made:
            self.late_bodies += 1
            return self._bodies.make(position)
        data = self._made.popleft()
        self._made_bytes -= len(data)
        return data

    def _wants_bodies(self) -> bool:
        ahead = len(self._made)
        return ahead < self._ahead and self._made_bytes < LOOKAHEAD_BYTES and self.offered + ahead < len(self._job)

    def _make_body(self) -> None:
        data = self._bodies.make(self.offered + len(self._made))
        self._made.append(data)
        self._made_bytes += len(data)

    def _refill(self) -> None:
        if not self._making and not self._over and self._wants_bodies():
            self._making = True
            if len(self._made) < LOOKAHEAD_LOW:
                self._loop.call_soon(self._refill_one)
            else:
                self.idle.add(self._refill_one)

    def _refill_one(self) -> None:
        self._making = False
        if self._wants_bodies():
            self._make_body()
            self._refill()

    # ends

    def connection_ready(self) -> None:
        self._pump()

    def connection_failed(self, error: str) -> None:
        if self._waiting and self._slots() > 0:
            self._end(self._waiting[0], "error", error)

    def exchange_filled(self, exchange: Exchange) -> None:
        self.idle.add(exchange.settle)

    def exchange_ended(self, connection: HttpConnection, exchange: Exchange) -> None:
        flight = self._open.get(exchange.position)
        if flight is None or flight.exchange is not exchange:
            return
        if self._was_stale(flight, connection, exchange):
            flight.retried = True
            self.retried += 1
            self._connections.pop(flight.position)
            self._waiting.appendleft(flight)
            self.pool.distrust()
            self._pump()
            return
        self._closes |= exchange.clean and connection.wire is None
        self._end(flight, None, "")

    def _was_stale(self, flight: Flight, connection: HttpConnection, exchange: Exchange) -> bool:
        """The server had closed the kept connection before it saw this request: send it once more."""
        if flight.retried or not exchange.untouched or not exchange.lost or flight.sent_ns is None:
            return False
        return connection.answers > 1 or flight.sent_ns - connection.opened_ns > _STALE_NS

    def _end(self, flight: Flight, status: Status | None, error: str) -> None:
        del self._open[flight.position]
        connection = self._connections.pop(flight.position, None)
        if connection is None:
            self._waiting.remove(flight)
        elif status is not None:  # given up before the answer ended: the connection is of no more use
            connection.close()
        flight.status = status
        flight.error = error
        flight.end_ns = monotonic_ns()
        flight.data = b""
        self.idle.add(lambda: self._on_flight_end(flight))
        self._offer.freed(self._answered_ns(flight) or flight.end_ns)
        if self._offer.due_ns <= flight.end_ns:  # a closed loop's stream is free
            self.fire()
        self._pump()
        self._check_over()

    def _answered_ns(self, flight: Flight) -> int | None:
        """When the answer ended, by its last stamp; None where the end bears none: a connection that was lost, or
        closed to end the body, ended now and not with the last data before."""
        ended = flight.exchange if flight.status is None else None
        return None if ended is None or ended.lost else ended.end_ns

    def _check_over(self) -> None:
        if self._open or self._over or not self._offer.over:
            return
        self._over = True
        self._alarm.close()
        if self._tick is not None:
            self._tick.cancel()
        self.idle.finish()
        self._on_all_ended()

    # housekeeping

    def _housekeep(self) -> None:
        self._tick = self._loop.call_later(_TICK_S, self._housekeep)
        now = monotonic_ns()
        self._expire(now)
        if not self._over:
            self.pool.keep_spare(self._spare(now))

    def _expire(self, now: int) -> None:
        while self._open:
            flight = next(iter(self._open.values()))  # the one that was due first
            if self._drained(now):
                self._end(flight, "unfinished", "still open when the run ended")
            elif now >= flight.scheduled_ns + self._timeout_ns:
                self._end(flight, "timeout", f"no end within {self._job.request_timeout_s:g} s")
            else:
                return

    def _drained(self, now: int) -> bool:
        return now >= self._drain_ns

    def _spare(self, now: int) -> int:
        """Connections to keep idle: what the plan needs in the next second. A closed loop's streams keep theirs, unless
        the server closes them."""
        coming = self._offer.coming(now + _SPARE_AHEAD_NS)
        if self._closes and self._job.concurrency and not self._offer.over:
            coming += self.in_flight
        if coming == 0:
            return 0
        most = max(_SPARE_MAX, coming) if self._job.concurrency else _SPARE_MAX  # a closed loop knows what it needs
        spare = min(max(coming + 2, _SPARE_MIN), most)
        limit = self._job.max_concurrency
        return spare if limit is None else min(spare, limit - self.in_flight)


def _offer(job: Job, t0_ns: int) -> Offer:
    if job.concurrency:
        return ClosedLoop([(t0_ns + at_ns, streams) for at_ns, streams in job.concurrency], len(job))
    return OpenLoop([t0_ns + offset for offset in job.scheduled_ns])
