"""Alarms, idle work and the shape: what decides when something happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.load.idle import CROWDED, IdleWork
from pdbench.load.shape import ArrivalShape, offered_rate
from pdbench.load.timer import Alarm, LoopAlarm, make_alarm

MAKERS: list[Callable[..., Alarm]] = [make_alarm, LoopAlarm]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("offsets_ms", [[3], [0], [-5], [200, 2]])
def test_an_alarm_rings_once_and_never_early(maker: Callable[..., Alarm], offsets_ms: list[int]) -> None:
    """With several settings the last one counts."""

    async def scene() -> int:
        loop = asyncio.get_running_loop()
        rung: list[int] = []
        first = loop.create_future()

        def ring() -> None:
            rung.append(monotonic_ns())
            first.set_result(None)  # a second ring would raise

        alarm = maker(loop, ring)
        for offset in offsets_ms:
            at_ns = monotonic_ns() + offset * 1_000_000
            alarm.set(at_ns)
        await asyncio.wait_for(first, 20)
        for _ in range(10):
            await asyncio.sleep(0)
        alarm.close()
        assert len(rung) == 1
        return rung[0] - at_ns

    assert asyncio.run(scene()) >= 0


def test_an_alarm_with_a_lead_does_not_ring_early() -> None:
    async def scene() -> int:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        alarm = make_alarm(loop, lambda: done.set_result(monotonic_ns()), 1_000_000)
        at_ns = monotonic_ns() + 3_000_000
        alarm.set(at_ns)
        rung = await asyncio.wait_for(done, 20)
        alarm.close()
        return int(rung) - at_ns

    assert asyncio.run(scene()) >= 0


class FakeLoop:
    """Runs what was called soon when told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Pacer:
    def __init__(self, due_ns: int) -> None:
        self.due_ns = due_ns


def idle_work(due_ns: int) -> tuple[FakeLoop, Pacer, IdleWork]:
    loop, pacer = FakeLoop(), Pacer(due_ns)
    fake: Any = loop
    return loop, pacer, IdleWork(fake, pacer)


NEVER = 1 << 62


def test_idle_work_is_done_in_order_when_nothing_is_due() -> None:
    loop, _, idle = idle_work(NEVER)
    done: list[int] = []
    for i in range(5):
        idle.add(lambda i=i: done.append(i))  # type: ignore[misc]
    assert done == []
    loop.run()
    assert done == [0, 1, 2, 3, 4]


def test_idle_work_waits_for_a_due_request_until_kicked() -> None:
    loop, pacer, idle = idle_work(0)
    done: list[int] = []
    idle.add(lambda: done.append(1))
    loop.run()
    assert done == []
    pacer.due_ns = NEVER
    idle.kick()
    loop.run()
    assert done == [1]


def test_idle_work_goes_first_when_crowded_and_at_the_end() -> None:
    loop, _, idle = idle_work(0)
    done: list[int] = []
    for _ in range(CROWDED + 3):
        idle.add(lambda: done.append(1))
    loop.run()
    assert len(done) == 4  # down to one less than crowded
    idle.finish()
    assert len(done) == CROWDED + 3
    assert len(idle) == 0


@given(gaps=st.lists(st.integers(0, 3 * 10**9), min_size=1, max_size=30))
def test_the_shape_offers_each_arrival_once(gaps: list[int]) -> None:
    due, at = [], 0
    for gap in gaps:
        at += gap
        due.append(at)
    seconds = at // 10**9 + 1
    assert sum(offered_rate(due, second * 10**9) for second in range(seconds)) == len(due)


def test_the_shape_ends_with_the_run() -> None:
    soon = 800_000_000
    shape = ArrivalShape([soon, soon + 1, soon + 2, 1 << 62])
    assert shape.tick() == (3, 3.0)
    shape.over = True
    assert shape.tick() is None
