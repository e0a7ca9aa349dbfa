"""Lines of JSON over the engine's stdin and stdout, neither of which may ever make it wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec

from pdbench.load.delta import Delta, FromEngine, ToEngine

_CHUNK = 1 << 16
_MAX_BACKLOG = 8 << 20  # deltas that nobody reads are dropped; the journal has everything
_POLL_S = 0.005


def read_line(fd: int) -> tuple[bytes, bytes]:
    """The first line of ``fd`` (blocking) and what was read beyond it; an empty line at its end."""
    pieces: list[bytes] = []
    while True:
        data = os.read(fd, _CHUNK)
        if not data:
            return b"", b""
        line, newline, rest = data.partition(b"\n")
        pieces.append(line)
        if newline:
            return b"".join(pieces), rest


class Inbox:
    """Commands from stdin."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, rest: bytes) -> None:
        self._loop = loop
        self._fd = fd
        self._rest = rest
        self._decode = msgspec.json.Decoder(ToEngine).decode

    def listen(self, on_command: Callable[[ToEngine], None], on_closed: Callable[[], None]) -> None:
        self._on_command = on_command
        self._on_closed = on_closed
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._readable)
        if self._rest:
            self._loop.call_soon(self._take, b"")

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._fd)
            self._on_closed()
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._on_command(self._decode(line))


class Outbox:
    """Messages to stdout, kept here while the reader is slow."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._backlog = bytearray()
        self._broken = False
        self._encode = msgspec.json.Encoder().encode
        os.set_blocking(fd, False)

    def send(self, message: FromEngine) -> None:
        if self._broken or (isinstance(message, Delta) and len(self._backlog) > _MAX_BACKLOG):
            return
        writing = bool(self._backlog)
        self._backlog += self._encode(message) + b"\n"
        if not writing:
            self._write()

    def _write(self) -> None:
        try:
            del self._backlog[: os.write(self._fd, self._backlog)]
        except BlockingIOError:
            pass
        except OSError:  # the reader is gone; stdin will say so
            self._broken = True
            self._backlog.clear()
        if self._backlog:
            self._loop.add_writer(self._fd, self._write)
        else:
            self._loop.remove_writer(self._fd)

    async def drained(self, limit_s: float = 5.0) -> None:
        """Wait until all is written, at most ``limit_s``."""
        end = self._loop.time() + limit_s
        while self._backlog and self._loop.time() < end:
            await asyncio.sleep(_POLL_S)
