"""Connections that are open before they are needed.

An open loop must not spend a request's first millisecond on a handshake, nor find all connections busy in a
burst. The pool keeps a number of idle connections that the sender sets from the plan ahead; a connection that
ends its answer in keep-alive comes back and is used first (the most recent one is the least likely to have
been closed meanwhile). A server that refuses is asked again for spares only after a pause; a request that
waits asks at once, so that each of them fails fast and for itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol

from pdbench.load.clock import ClockOffset
from pdbench.load.dial import Address, Dial
from pdbench.load.http import Exchange, HttpConnection
from pdbench.load.job import Endpoint
from pdbench.load.wire import KernelWire, Pacer, ReadCount, UserWire, Wake

CONNECT_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_DIALS_AT_ONCE = 64  # below the usual listen backlog of 128


class Requester(Protocol):
    """Who uses the connections."""

    def connection_ready(self) -> None:
        """One more connection is idle."""

    def connection_failed(self, error: str) -> None:
        """One attempt to connect failed."""

    def exchange_ended(self, connection: HttpConnection, exchange: Exchange) -> None:
        """An answer ended, well or not; the connection is back in the pool already, if it can be."""

    def exchange_filled(self, exchange: Exchange) -> None:
        """An answer has something to parse, when there is time."""


class Pool:
    """Idle, busy and opening connections to one server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: Endpoint,
        addresses: list[Address],
        pacer: Pacer,
        clock: ClockOffset | None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._addresses = addresses
        self._pacer = pacer
        self._clock = clock
        self._tls = tls
        self.wake = Wake(loop)
        self.count = ReadCount()
        self._idle: list[HttpConnection] = []
        self._dials: set[Dial] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pause_s = _FIRST_PAUSE_S
        self._not_before = 0.0
        self.requester: Requester | None = None
        self.opened = 0
        self.failed = 0
        self.last_error = ""

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def opening(self) -> int:
        return len(self._dials) + len(self._handshakes)

    def take(self) -> HttpConnection | None:
        """The most recently used idle connection."""
        return self._idle.pop() if self._idle else None

    def keep_spare(self, spare: int) -> None:
        """Open connections until ``spare`` are idle or opening, unless the server refused just now."""
        if self._loop.time() < self._not_before:
            return
        missing = min(spare - self.idle - self.opening, _DIALS_AT_ONCE - self.opening)
        for _ in range(missing):
            self._dial()

    def open_for(self, waiting: int) -> None:
        """Have at least as many attempts under way as requests wait."""
        for _ in range(min(waiting, _DIALS_AT_ONCE) - self.opening):
            self._dial()

    def distrust(self) -> None:
        """Drop idle connections that were used before: the server closed one of their kind silently."""
        for connection in [c for c in self._idle if c.answers]:
            self._idle.remove(connection)
            connection.close()

    def close(self) -> None:
        for dial in self._dials:
            dial.abandon()
        self._dials.clear()
        for task in self._handshakes:
            task.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    # opening

    def _dial(self) -> None:
        address = self._addresses[self.failed % len(self._addresses)] if not self.opened else self._addresses[0]
        attempt: list[Dial] = []

        def done(sock: socket.socket | None, error: str) -> None:
            self._dials.discard(attempt[0])
            attempt.clear()  # the attempt holds us: no cycle
            if sock is None:
                self._refused(error)
            else:
                self._connected(sock, address)

        attempt.append(Dial(self._loop, address, CONNECT_TIMEOUT_S, self._clock is not None, done))
        self._dials.add(attempt[0])

    def _connected(self, sock: socket.socket, address: Address) -> None:
        if self._addresses[0] != address:  # the first one that answers is kept to
            self._addresses.remove(address)
            self._addresses.insert(0, address)
        connection = HttpConnection(self, kernel_stamps=self._clock is not None)
        if self._clock is not None:
            connection.wire = KernelWire(self._loop, sock, connection, self._clock, self._pacer, self.count)
            self._welcome(connection)
            return
        task = self._loop.create_task(self._user_wire(connection, sock))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _user_wire(self, connection: HttpConnection, sock: socket.socket) -> None:
        wire = UserWire(connection, self._pacer, self.count, self.wake, sock if self._tls is None else None)
        name = self._endpoint.host if self._tls is not None else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._loop.create_connection(lambda: wire, sock=sock, ssl=self._tls, server_hostname=name)
        except TimeoutError:
            sock.close()
            self._refused(f"no TLS handshake within {CONNECT_TIMEOUT_S:g} s")
        except (OSError, ssl.SSLError) as error:
            sock.close()
            self._refused(f"connect failed: {error}")
        else:
            if wire.lost:  # it was told so before it had a wire to lose
                self._refused("connection closed at once")
                return
            connection.wire = wire
            self._welcome(connection)

    def _welcome(self, connection: HttpConnection) -> None:
        self.opened += 1
        self._pause_s = _FIRST_PAUSE_S
        self._idle.append(connection)
        if self.requester is not None:
            self.requester.connection_ready()

    def _refused(self, error: str) -> None:
        self.failed += 1
        self.last_error = error
        self._not_before = self._loop.time() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if self.requester is not None:
            self.requester.connection_failed(error)

    # Owner of the connections

    def exchange_ended(self, connection: HttpConnection, exchange: Exchange, reusable: bool) -> None:
        if reusable:
            self._idle.append(connection)
        if self.requester is not None:
            self.requester.exchange_ended(connection, exchange)

    def exchange_filled(self, exchange: Exchange) -> None:
        if self.requester is not None:
            self.requester.exchange_filled(exchange)

    def connection_closed(self, connection: HttpConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
