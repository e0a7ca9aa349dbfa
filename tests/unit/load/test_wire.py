"""Stamps that do not come, and connections that do not last, on sockets made of a list."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from pdbench.errors import UsageError
from pdbench.load import engine, stamps
from pdbench.load.clock import ClockOffset
from pdbench.load.pool import Pool
from pdbench.load.wire import KernelWire, ReadCount
from tests.unit.load.test_fleet_parts import job

NEVER = 1 << 62


@pytest.mark.parametrize(
    ("clock", "taken", "come", "used"),
    [
        ("auto", True, True, True),
        ("auto", True, False, False),
        ("auto", False, True, False),
        ("kernel", True, True, True),
        ("kernel", True, False, None),
        ("user", True, True, False),
    ],
)
def test_the_kernels_clock_is_used_where_stamps_come(
    monkeypatch: pytest.MonkeyPatch, clock: str, taken: bool, come: bool, used: bool | None
) -> None:
    monkeypatch.setattr(engine, "kernel_stamps_work", lambda: taken)
    monkeypatch.setattr(engine, "stamps_come", lambda: come)
    if used is None:
        with pytest.raises(UsageError, match="no kernel receive stamps"):
            engine.use_kernel_stamps(job(1, clock=clock))
    else:
        assert engine.use_kernel_stamps(job(1, clock=clock)) == used


@pytest.mark.parametrize(
    ("answers", "come"), [([[5]], True), ([[], [], [5]], True), ([[]], False), ([OSError()], False)]
)
def test_stamps_may_come_with_a_delay_or_never(monkeypatch: pytest.MonkeyPatch, answers: list[Any], come: bool) -> None:
    asked = iter(answers)

    def loopback(clock: ClockOffset, times: int) -> list[int]:
        answer: Any = next(asked, [])
        if isinstance(answer, OSError):
            raise answer
        return list(answer)

    monkeypatch.setattr(stamps, "loopback_stamps", loopback)
    assert stamps.stamps_come(60_000_000_000 if come else 3_000_000) == come


def test_reads_without_a_stamp_are_counted() -> None:
    reads: list[tuple[int, int]] = []
    stamp = [(1, 35, struct.pack("@qq", 0, 500))]
    given = iter([(b"a", stamp, 0, None), (b"b", [], 0, None), (b"c", stamp, 0, None)])
    sock: Any = SimpleNamespace(fileno=lambda: 9, recvmsg=lambda *_: next(given))
    loop: Any = SimpleNamespace(add_reader=lambda *_: None)
    receiver: Any = SimpleNamespace(on_read=lambda stamp_ns, read_ns, _: reads.append((stamp_ns, read_ns)))
    pacer: Any = SimpleNamespace(due_ns=NEVER)
    count = ReadCount()
    wire = KernelWire(loop, sock, receiver, ClockOffset(lambda: 100), pacer, count)
    for _ in range(3):
        wire._readable()
    assert (count.reads, count.unstamped) == (3, 1)
    assert [stamp_ns for stamp_ns, _ in reads[::2]] == [400, 400]
    assert reads[1][0] == reads[1][1]


@pytest.mark.parametrize("dies", [False, True])
def test_a_connection_that_dies_during_set_up_is_a_failed_one(dies: bool) -> None:
    """It would swallow its request, which would then end by its time-out."""

    async def connect(make: Any, **_: Any) -> None:
        wire = make()
        wire.connection_made(SimpleNamespace())
        if dies:
            wire.connection_lost(None)

    failures: list[str] = []
    loop: Any = SimpleNamespace(create_connection=connect, time=lambda: 0.0, create_task=asyncio.ensure_future)
    pacer: Any = SimpleNamespace(due_ns=NEVER)
    sock: Any = SimpleNamespace()

    async def scene() -> Pool:
        pool = Pool(loop, job(1).endpoint, [("a", 1)], pacer, None)  # type: ignore[list-item]
        pool.requester = SimpleNamespace(connection_ready=lambda: None, connection_failed=failures.append)
        pool._connected(sock, ("a", 1))  # type: ignore[arg-type]
        await asyncio.gather(*pool._handshakes)
        return pool

    pool = asyncio.run(scene())
    assert (pool.idle, pool.opened, pool.failed) == ((0, 0, 1) if dies else (1, 1, 0))
    assert failures == (["connection closed at once"] if dies else [])
