"""Opening one TCP connection without exceptions, tasks or cycles.

The engine runs with the garbage collector off. A dead server refuses every request of the rest of the plan;
an asyncio connect would leave a traceback cycle behind for each of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from pdbench.load.wire import SO_TIMESTAMPNS

Done = Callable[[socket.socket | None, str], None]


class Address(NamedTuple):
    """What ``getaddrinfo`` gave: family and socket address."""

    family: int
    sockaddr: tuple[Any, ...]


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, best first. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]


class Dial:
    """One attempt. ``done(socket or None, error)`` is called once, never from within the constructor.

    ``stamps`` asks the kernel for receive stamps before the first byte can arrive.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, to: Address, timeout_s: float, stamps: bool, done: Done
    ) -> None:
        self._loop = loop
        self._done: Done | None = done
        self._sock: socket.socket | None = None
        self._timer = loop.call_later(timeout_s, self._finish, f"no connection within {timeout_s:g} s")
        try:
            sock = socket.socket(to.family, socket.SOCK_STREAM)
        except OSError as error:
            loop.call_soon(self._finish, f"connect failed: {error.strerror}")
            return
        self._sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if stamps:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        code = sock.connect_ex(to.sockaddr)
        if code not in (0, errno.EINPROGRESS):
            loop.call_soon(self._finish, f"connect failed: {os.strerror(code)}")
            return
        loop.add_writer(sock.fileno(), self._writable)

    def _writable(self) -> None:
        if self._sock is None:
            return
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(f"connect failed: {os.strerror(code)}" if code else "")

    def abandon(self) -> None:
        """Give up without a word."""
        self._done = None
        self._finish("abandoned")

    def _finish(self, error: str) -> None:
        self._timer.cancel()
        sock, self._sock = self._sock, None
        done, self._done = self._done, None
        if sock is not None:
            self._loop.remove_writer(sock.fileno())
            if error:
                sock.close()
        if done is not None:
            done(None if error else sock, error)
