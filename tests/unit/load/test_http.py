"""Heads, bodies and ends of HTTP answers, on a wire made of a list."""

from __future__ import annotations

import pytest

from pdbench.load.http import MAX_HEAD_BYTES, Exchange, HttpConnection
from pdbench.load.recorder import outcome
from pdbench.load.sender import Flight

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"text":"a"}]}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
END = b"0\r\n\r\n"


class FakeWire:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> tuple[int, int]:
        self.written.append(data)
        return 7, 9

    def close(self) -> None:
        self.closed = True


class Owner:
    def __init__(self) -> None:
        self.ended: list[tuple[Exchange, bool]] = []
        self.closed = 0
        self.filled: list[Exchange] = []

    def exchange_filled(self, exchange: Exchange) -> None:
        self.filled.append(exchange)

    def exchange_ended(self, connection: HttpConnection, exchange: Exchange, reusable: bool) -> None:
        self.ended.append((exchange, reusable))

    def connection_closed(self, connection: HttpConnection) -> None:
        self.closed += 1


def asked() -> tuple[Owner, FakeWire, HttpConnection, Exchange]:
    owner, wire = Owner(), FakeWire()
    connection = HttpConnection(owner, kernel_stamps=True)
    connection.wire = wire
    exchange = Exchange(3)
    assert connection.send(exchange, b"request") == (7, 9)
    assert wire.written == [b"request"]
    return owner, wire, connection, exchange


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_answer_in_pieces_keeps_its_stamps(step: int) -> None:
    owner, wire, connection, exchange = asked()
    data = HEAD + CHUNK + CHUNK + END
    for n, at in enumerate(range(0, len(data), step)):
        connection.on_read(100 + n, 105 + n, data[at : at + step])
    assert owner.ended == [(exchange, True)]
    assert not wire.closed
    exchange.settle()
    assert exchange.clean
    assert exchange.status == 200
    assert len(exchange.reader.chunk_ns) == 2
    assert exchange.reader.chunk_ns[0] == 100 + (len(HEAD + CHUNK) - 3) // step
    assert set(exchange.user_lag_ns) == {5}
    assert exchange.data_reads == len(exchange.user_lag_ns) == -(-len(data) // step)


def test_a_connection_carries_one_answer_after_another() -> None:
    owner, _, connection, _ = asked()
    connection.on_read(1, 1, HEAD + CHUNK + END)
    second = Exchange(4)
    connection.send(second, b"again")
    connection.on_read(2, 2, b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + CHUNK)
    assert len(owner.ended) == 1
    connection.on_read(3, 3, END)
    assert [reusable for _, reusable in owner.ended] == [True, True]
    second.settle()
    assert second.reader.chunk_ns == [2]


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("data", "status", "fault", "reusable"),
    [
        (answer("200 OK", "Content-Type: application/json", body=b"{}"), 200, "not an event stream", False),
        (answer("200 OK"), 200, "Content-Type: none", False),
        (
            answer("200 OK", "Content-Type: text/event-stream", "Content-Encoding: gzip"),
            200,
            "compressed (gzip)",
            False,
        ),
        (answer("302 Found", "Location: /there"), 302, "redirect to /there", False),
        (answer("429 Too Many", body=b"later"), 429, "", True),
        (answer("500 Oops", "Connection: close", body=b"x"), 500, "", False),
        (answer("200 OK", "Content-Type: Text/Event-Stream; charset=utf-8"), 200, "", True),
        (b"SSH-2.0-OpenSSH\r\n", None, "not HTTP", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES, None, "head is larger", False),
        (HEAD + b"zz\r\n", 200, "not HTTP", False),
        (HEAD + CHUNK + b"0\r\nX-Trailer: 1\r\n\r\n", 200, "", True),
        (HEAD + b'%x;ext=1;quoted="a b"\r\n%s\r\n' % (len(EVENT), EVENT) + END, 200, "", True),
        (HEAD + CHUNK + END + HEAD + CHUNK + END, 200, "", False),  # an answer too many
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12000, None, "head is larger", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, None, "head is larger", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, "", True),
        (b"\x00\xff" * 50, None, "not HTTP", False),
    ],
)
def test_heads(data: bytes, status: int | None, fault: str, reusable: bool) -> None:
    owner, wire, connection, exchange = asked()
    connection.on_read(1, 1, data)
    assert owner.ended == [(exchange, reusable)]
    assert wire.closed == (not reusable)
    assert exchange.status == status
    assert fault in exchange.fault
    assert bool(fault) == bool(exchange.fault)


@pytest.mark.parametrize(
    ("head", "error", "clean", "lost"),
    [
        (HEAD, "", False, "closed the connection"),
        (HEAD, "connection lost: reset", False, "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "", True, "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "reset", False, "reset"),
    ],
)
def test_a_lost_connection(head: bytes, error: str, clean: bool, lost: str) -> None:
    owner, _, connection, exchange = asked()
    connection.on_read(1, 1, head)
    connection.on_lost(error)
    assert owner.ended == [(exchange, False)]
    assert owner.closed == 1
    assert exchange.clean == clean
    assert lost in exchange.lost
    assert not exchange.untouched


def test_a_server_that_talks_unasked_is_dropped() -> None:
    owner, wire, connection, _ = asked()
    connection.on_read(1, 1, HEAD + CHUNK + END)
    connection.on_read(2, 2, answer("408 Request Timeout"))
    assert wire.closed
    assert owner.closed == 1
    assert len(owner.ended) == 1


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        ("429 Too Many", ("Retry-After: 3",), "HTTP 429 (Retry-After 3): later"),
        ("503 Busy", (), "HTTP 503: later"),
        ("529 Overloaded", ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",), "HTTP 529 (Retry-After Wed, 21 Oct"),
    ],
)
def test_come_back_later_is_rejected(status: str, headers: tuple[str, ...], says: str) -> None:
    _, _, connection, exchange = asked()
    connection.on_read(1, 1, answer(status, *headers, body=b"later"))
    flight = Flight(0, 0, b"")
    flight.exchange = exchange
    found, error = outcome(flight, None)
    assert found == "rejected"
    assert error.startswith(says)


def test_http_1_0_ends_with_the_connection() -> None:
    owner, _, connection, exchange = asked()
    connection.on_read(1, 1, b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENT)
    assert owner.ended == []
    connection.on_lost("")
    assert owner.ended == [(exchange, False)]
    assert exchange.clean
    exchange.settle()
    assert exchange.reader.chunk_ns == [1]


@pytest.mark.parametrize("piece", [b"0\r\n" + b"X: " + b"y" * 5000, b"1;" + b"e" * 5000])
def test_trailers_and_extensions_without_end_are_refused(piece: bytes) -> None:
    owner, wire, connection, exchange = asked()
    connection.on_read(1, 1, HEAD + CHUNK)
    connection.on_read(2, 2, piece)
    for _ in range(20):
        if not owner.ended:
            connection.on_read(3, 3, b"z" * 5000)
    assert owner.ended == [(exchange, False)]
    assert wire.closed
    assert "trailer is larger" in exchange.fault


def test_a_long_stream_whose_chunk_heads_come_alone_has_no_large_trailer() -> None:
    owner, _, connection, exchange = asked()
    connection.on_read(1, 1, HEAD)
    head, body = CHUNK.split(b"\r\n", 1)
    for at in range(MAX_HEAD_BYTES // 4 + 10):
        connection.on_read(2 + at, 2 + at, head + b"\r\n")
        connection.on_read(2 + at, 2 + at, body)
        exchange.settle()
    connection.on_read(9999, 9999, END)
    assert exchange.fault == ""
    assert owner.ended == [(exchange, True)]


def test_many_tiny_reads_are_parsed_in_between() -> None:
    """A byte a read costs far more than a byte: what has piled up is counted by what it holds."""
    owner, _, connection, exchange = asked()
    connection.on_read(1, 1, HEAD)
    data = CHUNK * 40
    for at in range(len(data)):
        connection.on_read(2 + at, 2 + at, data[at : at + 1])
        assert len(exchange.pending) < 600
        if owner.filled:
            owner.filled.pop().settle()
    connection.on_read(9999, 9999, END)
    exchange.settle()
    assert len(exchange.reader.chunk_ns) == 40
    assert owner.ended == [(exchange, True)]


def test_an_error_found_in_between_ends_the_exchange() -> None:
    owner, _, connection, exchange = asked()
    connection.on_read(1, 1, HEAD + b"%x\r\n%s\r\n" % (8, b"data: x\n"))
    for at in range(9000):
        if not owner.ended:
            connection.on_read(2 + at, 2 + at, b"1\r\n\n\r\n")
    assert "not JSON" in exchange.fault


def test_a_body_without_end_stays_small_in_memory() -> None:
    owner, _, connection, exchange = asked()
    connection.on_read(1, 1, HEAD)
    for _ in range(100):
        connection.on_read(2, 2, b"%x\r\n" % 60_000 + b"x" * 60_000 + b"\r\n")
        assert exchange.pending_bytes < 200_000
        if owner.ended:
            break
    assert "larger than" in exchange.fault
