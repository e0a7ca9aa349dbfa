"""Clients that leave, stall or idle: slots are freed, nobody else waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from pdserve.service import GenerateRequest, Output
from tests.e2e.client import sample, until
from tests.e2e.fake_service import FakeService, Live, count_up, live

pytestmark = pytest.mark.e2e


@pytest.fixture
def server() -> Iterator[Live]:
    with live(FakeService()) as running:
        yield running


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_frees_its_slots(server: Live, stream: bool, before: int, how: str) -> None:
    """Also while the engine is silent: the handler is blocked waiting for a token then."""
    server.service.script = lambda _: [*(Output(1) for _ in range(before)), asyncio.Event()]
    link = server.send({"prompt": "a", "stream": stream})
    until(lambda: server.service.submitted)
    if stream:
        link.recv(1)
    if how == "reset":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    link.close()
    until(lambda: server.service.idle)
    server.service.script = count_up
    assert server.complete().status == 200
    page = server.get("/metrics").raw.decode()
    assert sample(page, "pdserve:request_success_total", 'finished_reason="abort"') == 1


def test_a_client_that_leaves_during_a_flood(server: Live) -> None:
    def flood(_: GenerateRequest) -> Iterator[Output]:
        while True:
            yield Output(1)

    server.service.script = flood
    link = server.send({"prompt": "a", "stream": True})
    link.recv(1000)
    link.close()
    until(lambda: server.service.idle)


def test_a_reader_that_stalls_holds_up_nobody_else(server: Live) -> None:
    def flood(request: GenerateRequest) -> Iterator[Output]:
        while len(request.tokens) == 1:
            yield Output(1)
        yield from count_up(request)

    server.service.script = flood
    stalled = [server.send({"prompt": "a", "stream": True}) for _ in range(3)]
    until(lambda: len(server.service.submitted) == 3)
    for _ in range(5):
        assert len(server.complete("one two", max_tokens=20, stream=True).events) == 21
    others = [request.id for request in server.service.submitted[3:]]
    until(lambda: server.service.closed == others)  # and the stalled ones are still open
    for link in stalled:
        link.close()
    until(lambda: server.service.idle)


def test_a_body_that_never_ends_is_no_request(server: Live) -> None:
    link = server.connect()
    link.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"prompt"')
    assert server.complete().status == 200
    link.close()
    assert server.complete().status == 200
    assert len(server.service.submitted) == 2


def test_many_idle_connections(server: Live) -> None:
    idle = [server.connect() for _ in range(200)]
    try:
        assert server.complete(stream=True, max_tokens=2).events[-1] == "[DONE]"
        raw = b'{"prompt": "a", "max_tokens": 1}'
        for link in idle[::50]:
            link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
            assert link.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        for link in idle:
            link.close()
