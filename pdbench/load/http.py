"""One HTTP/1.1 connection that carries one streamed answer after another.

The head is checked the moment it is complete (status, event stream, no compression); the body is kept raw
with its receive stamps and parsed later (``parse.py``). When some has piled up the owner is told, to have it parsed
in an idle moment; when much has, it is parsed on the spot: so memory stays bounded whatever a server sends, and
thousands of streams stay small.
"""

from __future__ import annotations

from array import array
from time import monotonic_ns
from typing import Any, Protocol

import httptools

from pdbench.load.parse import AnswerReader
from pdbench.load.wire import Wire

PENDING_BYTES = 64 * 1024  # about 200 events: under a millisecond to parse
FILLED_BYTES = 6 * 1024  # 2,000 streams that hold this much are 12 MB
_READ_OVERHEAD = 120  # what a pending read costs beside its bytes: a tuple, an int, an object's head
MAX_BODY_BYTES = 256 * 1024 * 1024  # a million tokens' worth of events
MAX_HEAD_BYTES = 64 * 1024  # of a head, of trailers, or of chunk extensions without a byte of body
EXCERPT_BYTES = 4096


class Exchange:
    """One request's answer as it arrives; ``position`` is the request's place in the job."""

    __slots__ = (
        "clean",
        "data_reads",
        "end_ns",
        "excerpt",
        "fault",
        "filled",
        "last_ns",
        "lost",
        "pending",
        "pending_bytes",
        "position",
        "reader",
        "retry_after",
        "size",
        "stamps_ns",
        "status",
        "user_lag_ns",
    )

    def __init__(self, position: int) -> None:
        self.position = position
        self.status: int | None = None
        self.fault = ""  # why this cannot be an answer
        self.lost = ""  # what became of the connection, if it did not last
        self.clean = False  # the body ended as HTTP says it should
        self.end_ns: int | None = None
        self.last_ns = 0
        self.pending: list[tuple[int, bytes]] = []
        self.pending_bytes = 0
        self.filled = False  # the owner knows that there is something to parse
        self.size = 0
        self.reader = AnswerReader()
        self.excerpt = b""  # the beginning of an answer that is no event stream
        self.retry_after = ""
        self.stamps_ns = array("q")  # of each read, with its lag; on the kernel's clock
        self.user_lag_ns = array("q")
        self.data_reads = 0

    @property
    def untouched(self) -> bool:
        """No byte of an answer came."""
        return self.data_reads == 0

    def settle(self) -> None:
        """Parse what is pending."""
        for stamp_ns, data in self.pending:
            self.reader.feed(stamp_ns, data)
        self.pending.clear()
        self.pending_bytes = 0
        self.filled = False


class Owner(Protocol):
    """Who is told when a connection's exchange, or the connection itself, has ended."""

    def exchange_ended(self, connection: HttpConnection, exchange: Exchange, reusable: bool) -> None: ...

    def exchange_filled(self, exchange: Exchange) -> None:
        """There is something to parse, when there is time."""

    def connection_closed(self, connection: HttpConnection) -> None:
        """It was idle, or its exchange has just been reported as ended."""


class HttpConnection:
    """A ``Receiver`` of a wire: parses heads, gathers bodies, knows when one ends."""

    def __init__(self, owner: Owner, kernel_stamps: bool) -> None:
        self._owner = owner
        self._kernel_stamps = kernel_stamps
        self._parser: Any = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._stamp_ns = 0
        self._status = 0
        self._head: dict[bytes, bytes] = {}
        self._in_body = False
        self._head_bytes = 0
        self._complete = False
        self._keep_alive = False
        self._until_close = False
        self.wire: Wire | None = None
        self.opened_ns = monotonic_ns()
        self.answers = 0

    def send(self, exchange: Exchange, data: bytes) -> tuple[int, int]:
        """Start an exchange; returns the stamps before and after the write (CLOCK_MONOTONIC ns)."""
        assert self.wire is not None
        self._exchange = exchange
        self._in_body = self._complete = self._until_close = False
        self._head_bytes = 0
        return self.wire.write(data)

    def close(self) -> None:
        """Drop the connection without a callback."""
        self._exchange = None
        self._release()

    # Receiver

    def on_read(self, stamp_ns: int, read_ns: int, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self._shut()  # a server that talks without being asked, as on an idle timeout
            return
        self._stamp_ns = exchange.last_ns = stamp_ns
        exchange.data_reads += 1
        if self._kernel_stamps:
            exchange.stamps_ns.append(stamp_ns)
            exchange.user_lag_ns.append(read_ns - stamp_ns)
        size = exchange.size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            exchange.fault = exchange.fault or f"the answer is not HTTP/1.1: {error}"
        if exchange.size > size:
            self._head_bytes = 0  # chunk heads between pieces of the body are no trailer, however many they are
        else:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                what = "trailer" if self._in_body else "head"
                exchange.fault = exchange.fault or f"the answer's {what} is larger than {MAX_HEAD_BYTES} bytes"
        if exchange.pending_bytes > FILLED_BYTES:
            self._filled(exchange)
        if self._complete:
            exchange.clean = True
            self._end(self._keep_alive and not exchange.fault)
        elif exchange.fault:
            self._end(reusable=False)

    def _filled(self, exchange: Exchange) -> None:
        """Have it parsed, sooner or now. What does not parse ends the exchange: nothing after it would count."""
        if exchange.pending_bytes > PENDING_BYTES:
            exchange.settle()
        elif not exchange.filled:
            exchange.filled = True
            self._owner.exchange_filled(exchange)
        exchange.fault = exchange.fault or exchange.reader.error

    def on_lost(self, error: str) -> None:
        exchange = self._exchange
        self.wire = None
        if exchange is None:
            self._shut()
            return
        if self._until_close and self._in_body and not error:
            exchange.clean = True
        exchange.lost = error or "the server closed the connection"
        self._end(reusable=False)

    def _end(self, reusable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.end_ns = exchange.last_ns or None
        self.answers += 1
        if not reusable:
            self._release()
        self._owner.exchange_ended(self, exchange, reusable)
        if not reusable:
            self._owner.connection_closed(self)

    def _shut(self) -> None:
        self._release()
        self._owner.connection_closed(self)

    def _release(self) -> None:
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        self._parser = None  # it refers back to us, and the garbage collector is off

    # httptools

    def on_message_begin(self) -> None:
        self._head = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._head) < 256 and not self._in_body:
            self._head[name.lower()] = value

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or self._complete:  # an answer that nobody asked for, right behind ours
            return
        self._status = self._parser.get_status_code()
        if self._status < 200:
            return  # 100 Continue and the like: the answer proper follows
        self._in_body = True
        exchange.status = self._status
        head = self._head
        self._until_close = (
            b"content-length" not in head and b"chunked" not in head.get(b"transfer-encoding", b"").lower()
        )
        exchange.retry_after = _text(head.get(b"retry-after", b""))
        exchange.fault = exchange.fault or head_fault(self._status, head)

    def on_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or self._complete:
            return
        exchange.size += len(data)
        if exchange.size > MAX_BODY_BYTES:
            exchange.fault = exchange.fault or f"the answer is larger than {MAX_BODY_BYTES >> 20} MiB"
            return
        if self._status == 200:
            exchange.pending.append((self._stamp_ns, data))
            exchange.pending_bytes += len(data) + _READ_OVERHEAD
        elif len(exchange.excerpt) < EXCERPT_BYTES:
            exchange.excerpt = (exchange.excerpt + data)[:EXCERPT_BYTES]
        elif exchange.size > PENDING_BYTES:
            exchange.fault = exchange.fault or "the error answer is too long"

    def on_message_complete(self) -> None:
        if self._complete:
            self._keep_alive = False
        elif self._status >= 200:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it on return


def head_fault(status: int, head: dict[bytes, bytes]) -> str:
    """Why a head cannot begin a streamed answer; ``""`` when it can, or when its body tells what is wrong."""
    if 300 <= status < 400:
        return f"HTTP {status}: redirect to {_text(head.get(b'location', b'?'))}; redirects are not followed"
    if status != 200:
        return ""
    encoding = _text(head.get(b"content-encoding", b"identity"))
    if encoding.lower() not in ("identity", ""):
        return f"the answer is compressed ({encoding}) although identity was asked for"
    kind = _text(head.get(b"content-type", b""))
    if kind.split(";")[0].strip().lower() != "text/event-stream":
        return f"the answer is not an event stream (Content-Type: {kind or 'none'})"
    return ""


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()[:200]
