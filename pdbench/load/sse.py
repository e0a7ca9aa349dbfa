"""Server-sent events, incrementally, as the WHATWG standard parses them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

Lines end in CRLF, LF or CR; a byte-order mark at the start is skipped; several ``data`` lines join with a
line feed; lines that start with a colon are comments; a blank line dispatches what was gathered; what is not
followed by a blank line is never dispatched. Bytes may be split anywhere, also inside CRLF or the mark.
``id`` and ``retry`` matter to reconnecting browsers only and are skipped.
"""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
MAX_EVENT_BYTES = 1 << 20  # a token's event is a few hundred bytes; a megabyte is no token


class SseOverflow(Exception):  # noqa: N818 - a state of the stream, turned into a request's error text
    """An event (or a line) grew beyond the limit."""


class Event(NamedTuple):
    """One dispatched event. ``name`` is ``b""`` where the stream gave none."""

    data: bytes
    name: bytes = b""


class SseParser:
    """``feed(bytes)`` returns the events that these bytes completed, in order."""

    __slots__ = ("_between", "_data", "_limit", "_name", "_rest", "_rest_size", "_size", "_skip_lf", "_start")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._rest: list[bytes] = []  # the unfinished last line, in pieces: joining each would be quadratic
        self._rest_size = 0
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0
        self._skip_lf = False  # the last byte was CR; an LF that follows belongs to it
        self._start = True
        self._between = False  # between two events, nothing pending

    def feed(self, data: bytes) -> list[Event]:
        """Raises SseOverflow when one event or line exceeds the limit; the parser is then spent."""
        if self._between and data.startswith(b"data: ") and self._is_one(data):
            return [Event(data[6:-2])]
        events = self._feed(data)
        self._between = not (self._start or self._skip_lf or self._rest or self._data or self._name)
        return events

    def _is_one(self, data: bytes) -> bool:
        """One whole event of one line and nothing else, as almost all are: half the work."""
        return (
            data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n")
            and b"\r" not in data
            and len(data) <= self._limit
        )

    def _feed(self, data: bytes) -> list[Event]:
        if self._start:
            data = self._skip_mark(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[Event] = []
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = b"".join(self._rest) + lines[0]
            self._rest, self._rest_size = [], 0
        for line in lines:
            self._line(line, events)
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
        if self._rest_size + self._size > self._limit:
            raise SseOverflow(f"an event is larger than {self._limit} bytes")
        return events

    def _skip_mark(self, data: bytes) -> bytes:
        """Drop a byte-order mark, which may come in pieces."""
        data, self._rest = b"".join(self._rest) + data, []
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._rest = [data]
            return b""
        self._start = False
        return data.removeprefix(_BOM)

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(b"\n".join(self._data), self._name))
                self._data = []
            self._name = b""
            self._size = 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > self._limit:
                raise SseOverflow(f"an event is larger than {self._limit} bytes")
            self._data.append(value)
        elif field == b"event":
            self._name = value
