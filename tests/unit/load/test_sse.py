"""The event-stream parser against the standard's own examples, and against every way of splitting bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.load.sse import Event, SseOverflow, SseParser


def parse(*pieces: bytes) -> list[Event]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\r", [b"a"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\ndata\ndata\n\ndata:", [b"", b"\n"]),  # the standard's example
        (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),  # and its other one
        (b": ping\n\ndata: a\n\n", [b"a"]),
        (b":\ndata: a\n: b\n\n", [b"a"]),
        (b"id: 7\nretry: 10\nnonsense\ndata: a\n\n", [b"a"]),
        (b"event: x\n\n", []),
        (b"data: never dispatched", []),
        (b"data: never dispatched\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: \xef\xbb\xbf\n\n", [b"\xef\xbb\xbf"]),
        (b"\n\n\n", []),
        (b"", []),
        (b"data: a: b\n\n", [b"a: b"]),
        (b" data: a\n\n", []),
        (b"Data: a\n\n", []),
    ],
)
def test_the_table(stream: bytes, data: list[bytes]) -> None:
    assert [event.data for event in parse(stream)] == data
    assert [event.data for event in parse(*(stream[i : i + 1] for i in range(len(stream))))] == data


def test_an_event_keeps_its_name_and_the_next_one_has_none() -> None:
    assert parse(b"event: error\ndata: a\n\ndata: b\n\n") == [Event(b"a", b"error"), Event(b"b")]
    assert parse(b"event: lost\n\ndata: b\n\n") == [Event(b"b")]


def test_one_read_may_complete_several_events() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n\ndata: b\n\ndata: c") == [Event(b"a"), Event(b"b")]
    assert parser.feed(b"\n\n") == [Event(b"c")]


def drown(parser: SseParser, piece: bytes) -> None:
    for _ in range(10):
        parser.feed(piece)


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 60, b"x" * 60, b"data: " + b"x" * 20 + b"\n"])
def test_what_never_ends_is_refused(piece: bytes) -> None:
    parser = SseParser(max_event_bytes=100)
    with pytest.raises(SseOverflow, match="larger than 100 bytes"):
        drown(parser, piece)


_LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b": note", b"event: e", b"", b"", b"id: 1", "data: é".encode(), b"x"]
)
_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
_STREAMS = st.lists(st.tuples(_LINES, _ENDS), max_size=20).map(lambda ls: b"".join(a + b for a, b in ls))


@settings(max_examples=150)
@given(
    stream=_STREAMS,
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_any_split_gives_the_same_events(stream: bytes, mark: bytes, cuts: list[int]) -> None:
    stream = mark + stream
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert parse(*pieces) == parse(stream)
