"""When a stream of a closed loop is free again, with connections that only take requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

import pytest

from pdbench.load.body import BodyMaker
from pdbench.load.http import Exchange
from pdbench.load.offer import NEVER_NS
from pdbench.load.sender import Flight, Sender
from tests.unit.load.test_fleet_parts import job


class Connection:
    """Keeps what it was given to send."""

    answers = 1
    opened_ns = 0

    def __init__(self, wire: object | None) -> None:
        self.wire = wire
        self.exchange: Exchange | None = None

    def send(self, exchange: Exchange, data: bytes) -> tuple[int, int]:
        self.exchange = exchange
        now = monotonic_ns()
        return now, now

    def close(self) -> None:
        pass


def offered(streams: int, wire: object | None, end: Callable[[Exchange], None]) -> tuple[list[int], int]:
    """(due instants, when the first answer was over) of a closed loop whose first answer ends by ``end``."""
    connections: list[Connection] = []
    flights: list[Flight] = []

    def take() -> Connection:
        connections.append(Connection(wire))
        return connections[-1]

    async def scene() -> int:
        loop = asyncio.get_running_loop()
        asked = job(20, concurrency=[(0, streams)], scheduled_ns=[0] * 20)
        sender = Sender(loop, asked, BodyMaker(asked, ""), flights.append, lambda: None)
        pool: Any = SimpleNamespace(take=take, open_for=lambda _: None, keep_spare=lambda _: None)
        sender.pool = pool
        sender.start(monotonic_ns())
        sender.fire()
        exchange = connections[0].exchange
        assert exchange is not None
        end(exchange)
        over_ns = monotonic_ns()
        connection: Any = connections[0]
        sender.exchange_ended(connection, exchange)
        spare = sender._spare(monotonic_ns())
        assert spare == (0 if wire is not None else streams + 2 if streams > 6 else 8)
        sender.stop()
        sender.idle.finish()
        return over_ns

    over_ns = asyncio.run(scene())
    return [flight.scheduled_ns for flight in sorted(flights, key=lambda f: f.position)], over_ns


def ended(lost: str, clean: bool, ago_ns: int) -> Callable[[Exchange], None]:
    def end(exchange: Exchange) -> None:
        exchange.status, exchange.data_reads, exchange.lost, exchange.clean = 200, 1, lost, clean
        exchange.end_ns = monotonic_ns() - ago_ns

    return end


FAR_NS = 30_000_000_000


@pytest.mark.parametrize(
    ("lost", "clean", "past"),
    [("", True, True), ("the server closed the connection", True, False), ("connection lost: reset", False, False)],
    ids=["a whole answer", "a body that the close ends", "a broken answer"],
)
def test_a_stream_is_free_when_its_answer_ended(lost: str, clean: bool, past: bool) -> None:
    """The last data of an answer that broke off came long before its end: no request was due then."""
    due, over_ns = offered(1, object(), ended(lost, clean, FAR_NS))
    assert len(due) == 2
    assert (due[1] < over_ns - FAR_NS // 2) == past


@pytest.mark.parametrize("streams", [1, 9])
def test_where_the_server_closes_connections_spare_ones_are_kept(streams: int) -> None:
    due, _ = offered(streams, None, ended("", True, 0))
    assert len(due) == streams + 1


def test_an_edit_moves_what_is_due_and_the_end_of_the_drain() -> None:
    async def scene() -> None:
        asked = job(4, scheduled_ns=[0, FAR_NS, 2 * FAR_NS, 3 * FAR_NS], drain_timeout_s=5.0)
        sender = Sender(asyncio.get_running_loop(), asked, BodyMaker(asked, ""), lambda _: None, lambda: None)
        pool: Any = SimpleNamespace(take=lambda: None, open_for=lambda _: None, keep_spare=lambda _: None)
        sender.pool = pool
        t0_ns = monotonic_ns()
        sender.start(t0_ns)
        sender.fire()
        assert (sender.offered, sender.due_ns) == (1, t0_ns + FAR_NS)
        sender.retime(t0_ns + FAR_NS // 2, 10.0)
        assert sender.due_ns == t0_ns + FAR_NS // 2 + FAR_NS // 20
        assert sender._drain_ns == t0_ns + FAR_NS // 2 + FAR_NS // 4 + 5_000_000_000
        sender.stop()
        sender.retime(t0_ns, 0.1)
        assert (sender.due_ns, sender._drain_ns) == (NEVER_NS, 0), "an end stays an end"
        sender.idle.finish()

    asyncio.run(scene())
