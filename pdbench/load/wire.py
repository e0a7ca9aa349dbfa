"""Two ways to receive bytes with a time on them, behind one small protocol.

``KernelWire``: plain TCP on Linux. The kernel stamps each packet as it arrives (``SO_TIMESTAMPNS``), however
late this process comes round to read it: when hundreds of streams emit together, a stamp taken in userspace
is late by the length of the burst, the kernel's is not. If one read took several segments, the stamp is the
last one's. That may be early after a loss on the way: segments behind a hole keep the stamps of their arrival, and
become readable only when the hole is filled. Bytes that come without a stamp get the time of the read and are counted
(``ReadCount``): a kernel that takes the option need not give stamps.

``UserWire``: an asyncio Protocol, for TLS and for other systems. The stamp is the first thing taken when
bytes are handed over. Streams that emit together wake the loop once and are then stamped one after another:
``Wake`` notes how long after the first each of the others was (no other measure of load sees that).

Between two reads both let a due request out first (``Pacer``), so that a burst of answers does not delay
the next question.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from time import monotonic_ns
from typing import Protocol, cast

from pdbench.load.clock import ClockOffset
from pdbench.load.lag import LagLog

SO_TIMESTAMPNS = 35  # asm-generic/socket.h, "_OLD" layout: two native longs; Python has no name for it
_STAMP = struct.Struct("@qq")
_READ_BYTES = 65536
_ANCILLARY_BYTES = 64
_TOO_EARLY = (BlockingIOError, InterruptedError)


class Receiver(Protocol):
    """Who gets the bytes."""

    def on_read(self, stamp_ns: int, read_ns: int, data: bytes) -> None:
        """``stamp_ns``: arrival; ``read_ns``: when userspace had it. Equal on the user clock."""

    def on_lost(self, error: str) -> None:
        """The connection is gone; ``error`` is ``""`` when the peer closed it in an orderly way."""


class Wire(Protocol):
    """A connected socket."""

    def write(self, data: bytes) -> tuple[int, int]:
        """Hand bytes to the socket; returns CLOCK_MONOTONIC ns taken just before and just after.

        The process may lose its core between stamp and write: the first byte left between the two.
        """

    def close(self) -> None:
        """Close at once; no callback comes after."""


class Pacer(Protocol):
    """Who has requests to send at given instants."""

    due_ns: int

    def fire(self) -> None:
        """Send what is due."""


def kernel_stamps_work() -> bool:
    """Whether this system takes the option, in the layout we unpack. That stamps then come, ``stamps.py`` finds out."""
    if not sys.platform.startswith("linux") or struct.calcsize("l") != 8:
        return False
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def unpack_stamp(data: bytes) -> int:
    """What ``SO_TIMESTAMPNS`` puts beside the bytes, as CLOCK_REALTIME ns."""
    seconds, nanoseconds = _STAMP.unpack(data)
    return int(seconds * 1_000_000_000 + nanoseconds)


class ReadCount:
    """Reads of all connections; ``unstamped``: those on the kernel's clock that came without its stamp."""

    __slots__ = ("reads", "unstamped")

    def __init__(self) -> None:
        self.reads = 0
        self.unstamped = 0


class Wake:
    """One wake-up of the event loop: how long its later reads waited for its earlier ones."""

    __slots__ = ("_began_ns", "_loop", "lag")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began_ns = 0
        self.lag = LagLog()

    def read(self, now_ns: int) -> None:
        """A read at this instant; the wake-up ends when the loop comes round."""
        if not self._began_ns:
            self._began_ns = now_ns
            self._loop.call_soon(self._end)
        self.lag.add(now_ns - self._began_ns)

    def _end(self) -> None:
        self._began_ns = 0


class KernelWire:
    """See the module's docstring."""

    __slots__ = ("_clock", "_count", "_fd", "_loop", "_out", "_pacer", "_receiver", "_sock")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        receiver: Receiver,
        clock: ClockOffset,
        pacer: Pacer,
        count: ReadCount,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._receiver: Receiver | None = receiver
        self._clock = clock
        self._pacer = pacer
        self._count = count
        self._out: memoryview | None = None
        loop.add_reader(self._fd, self._readable)

    def write(self, data: bytes) -> tuple[int, int]:
        now = monotonic_ns()
        try:
            sent = self._sock.send(data)
        except _TOO_EARLY:
            sent = 0
        except OSError as error:
            # Said later: the caller is still noting that the request went out.
            self._loop.call_soon(self._lose, _reason(error))
            return now, now
        done = monotonic_ns()
        if sent < len(data):
            self._out = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._writable)
        return now, done

    def _writable(self) -> None:
        if self._out is None or self._receiver is None:
            return
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except _TOO_EARLY:
            return
        except OSError as error:
            self._lose(_reason(error))
            return
        if not self._out:
            self._out = None
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        if self._receiver is None:
            return
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except _TOO_EARLY:
            return
        except OSError as error:
            self._lose(_reason(error))
            return
        read_ns = stamp_ns = monotonic_ns()
        if self._pacer.due_ns <= read_ns:
            self._pacer.fire()
        if not data:
            self._lose("")
            return
        self._count.reads += 1
        if not ancillary:
            self._count.unstamped += 1
        else:
            stamp_ns = self._clock.monotonic_ns(unpack_stamp(ancillary[0][2]), read_ns)
        self._receiver.on_read(stamp_ns, read_ns, data)

    def _lose(self, error: str) -> None:
        receiver = self._receiver
        self.close()
        if receiver is not None:
            receiver.on_lost(error)

    def close(self) -> None:
        if self._receiver is None:
            return
        self._receiver = None
        self._loop.remove_reader(self._fd)
        if self._out is not None:
            self._loop.remove_writer(self._fd)
        self._sock.close()


class UserWire(asyncio.Protocol):
    """See the module's docstring."""

    def __init__(
        self, receiver: Receiver, pacer: Pacer, count: ReadCount, wake: Wake, plain: socket.socket | None = None
    ) -> None:
        """``plain``: the socket, where nothing (TLS) stands between it and the bytes."""
        self._receiver: Receiver | None = receiver
        self._pacer = pacer
        self._count = count
        self._wake = wake
        self._plain = plain
        self._transport: asyncio.WriteTransport | None = None

    @property
    def lost(self) -> bool:
        """No connection yet, or none any more."""
        return self._transport is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        self._count.reads += 1
        self._wake.read(now)
        if self._pacer.due_ns <= now:
            self._pacer.fire()
        if self._receiver is not None:
            self._receiver.on_read(now, now, data)

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self._receiver, self._transport, self._plain = self._receiver, None, None, None
        if receiver is not None:
            receiver.on_lost(_reason(exc) if exc is not None else "")

    def write(self, data: bytes) -> tuple[int, int]:
        """uvloop's transport writes at the end of the loop's round: a plain socket is written to at once."""
        now = monotonic_ns()
        sent = 0
        if self._plain is not None and self._transport is not None and not self._transport.get_write_buffer_size():
            with contextlib.suppress(OSError):  # what is wrong with it, the transport finds out
                sent = self._plain.send(data)
        if sent < len(data) and self._transport is not None:
            self._transport.write(data[sent:])
        return now, monotonic_ns()

    def close(self) -> None:
        transport, self._receiver, self._transport = self._transport, None, None
        self._plain = None
        if transport is not None:
            transport.abort()


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"connection lost: {text}"
