"""What no server should send: the parsers against a slow reference, any split, and noise."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.load.http import PENDING_BYTES, Exchange, HttpConnection
from pdbench.load.parse import AnswerReader
from pdbench.load.sse import Event, SseParser


def lines_of(stream: bytes) -> list[bytes]:
    """Byte by byte; what is not ended by a line end is no line."""
    lines, line, i = [], b"", 0
    while i < len(stream):
        here = stream[i : i + 1]
        if here in (b"\r", b"\n"):
            lines.append(line)
            line = b""
            i += stream[i : i + 2] == b"\r\n"
        else:
            line += here
        i += 1
    return lines


def reference(stream: bytes) -> list[Event]:
    """The standard's algorithm, word for word, over the whole stream."""
    events = []
    data, name = b"", b""
    for line in lines_of(stream[3:] if stream[:3] == b"\xef\xbb\xbf" else stream):
        if line == b"":
            if data != b"":
                events.append(Event(data[:-1], name))  # without its last line feed
            data, name = b"", b""
            continue
        colon = line.find(b":")
        field, value = (line, b"") if colon < 0 else (line[:colon], line[colon + 1 :])
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":  # a comment's field is empty
            data += value + b"\n"
        elif field == b"event":
            name = value
    return events


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


_CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)
_BITS = st.sampled_from(
    [
        b"data: {}\n\n",
        b"data: a\n\n",
        b"data",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"event",
        b"x",
        b"\xef\xbb\xbf",
        b"\xef\xbb",
        b"id: 1",
        b"\0",
    ]
)
_STREAM = st.one_of(st.lists(_BITS, max_size=40).map(b"".join), st.binary(max_size=80))


@settings(max_examples=300, deadline=None)
@given(stream=_STREAM, cuts=_CUTS)
def test_events_are_those_of_the_reference_however_split(stream: bytes, cuts: list[int]) -> None:
    parser = SseParser()
    found = [event for piece in pieces(stream, cuts) for event in parser.feed(piece)]
    assert found == reference(stream)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class Quiet:
    """A wire and an owner that only remember."""

    def __init__(self) -> None:
        self.ended: list[bool] = []

    def write(self, data: bytes) -> tuple[int, int]:
        return 1, 1

    def close(self) -> None: ...

    def exchange_filled(self, exchange: Exchange) -> None: ...

    def connection_closed(self, connection: HttpConnection) -> None: ...

    def exchange_ended(self, connection: HttpConnection, exchange: Exchange, reusable: bool) -> None:
        self.ended.append(reusable)


def received(parts: list[bytes]) -> tuple[Exchange, list[bool]]:
    """An exchange that got these reads, then the end of the connection."""
    quiet = Quiet()
    connection = HttpConnection(quiet, kernel_stamps=True)
    connection.wire = quiet
    exchange = Exchange(0)
    connection.send(exchange, b"")
    for n, part in enumerate(parts):
        if quiet.ended:
            break
        connection.on_read(n + 1, n + 1, part)
        assert exchange.pending_bytes <= PENDING_BYTES + len(part) * 130
    if not quiet.ended:
        connection.on_lost("")
    exchange.settle()
    return exchange, quiet.ended


def event(i: int) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": f"é{i}"}]}, ensure_ascii=False).encode() + b"\n\n"


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    cuts=_CUTS,
    framing=st.sampled_from(["chunked", "length", "close"]),
    extra=st.sampled_from([b"", b";a=b"]),
)
def test_any_split_of_an_answer_gives_the_same_chunks(
    sizes: list[int], cuts: list[int], framing: str, extra: bytes
) -> None:
    bodies = [b"".join(event(i) for _ in range(size)) for i, size in enumerate(sizes)] + [b"data: [DONE]\n\n"]
    body = b"".join(bodies)
    if framing == "chunked":
        framed = b"".join(b"%x%s\r\n%s\r\n" % (len(b), extra, b) for b in bodies)
        answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    elif framing == "length":
        answer = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        answer = HEAD + b"\r\n" + body
    exchange, ended = received(pieces(answer, cuts))
    assert exchange.reader.verdict(exchange.clean, exchange.lost) == ("ok", "")
    assert len(exchange.reader.chunk_ns) == sum(sizes)
    assert exchange.reader.chunk_ns == sorted(exchange.reader.chunk_ns)
    assert ended == [framing != "close"]
    assert (exchange.fault, exchange.clean) == ("", True)


_FRAGMENTS = [
    HEAD,
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"Content-Length: 9\r\n\r\n",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Encoding: gzip\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffffff\r\n",
    b"0\r\n\r\n",
    event(1),
    b"%x\r\n%s\r\n" % (len(event(2)), event(2)),
]
_NOISE = st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(_FRAGMENTS)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(parts=_NOISE)
def test_noise_ends_in_a_counted_outcome(parts: list[bytes]) -> None:
    exchange, ended = received([part for part in parts if part])
    assert len(ended) == 1
    status, error = exchange.reader.verdict(exchange.clean, exchange.lost)
    assert (status == "ok") == (not error)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["choices", "usage", "delta", "text", "error", "completion_tokens"]), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(payloads=st.lists(_JSON, max_size=4))
def test_any_json_is_taken_or_refused(payloads: list[object]) -> None:
    reader = AnswerReader()
    for n, payload in enumerate(payloads):
        reader.feed(n, b"data: " + json.dumps(payload).encode() + b"\n\n")
    counted = reader.counted(4)
    assert len(counted.tokens) == len(reader.chunk_ns)
    assert all(0 <= tokens < 1 << 31 for tokens in counted.tokens)
    assert reader.verdict(True, "", 4)[0] in ("ok", "error")
    reader.note(4)
