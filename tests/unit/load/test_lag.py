"""Lags, live histograms and the clock offset: small sums that must be right."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterator
from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pdbench.load.probe as probe_module
from pdbench.load.clock import ClockOffset, measure_offset_ns
from pdbench.load.histogram import HIGHEST_US, LiveHistogram
from pdbench.load.lag import LagLog, LagSummary, bucket
from pdbench.load.probe import SelfProbe, peak_rss_bytes
from pdbench.load.wire import Wake


@given(value=st.integers(0, 1 << 62))
def test_a_bucket_is_within_a_thousandth(value: int) -> None:
    assert bucket(value) <= value
    assert value - bucket(value) <= value / 1024


@given(values=st.lists(st.integers(0, 10**12), min_size=1, max_size=200))
def test_lag_percentiles_are_nearest_rank(values: list[int]) -> None:
    log = LagLog()
    log.extend(values)
    found = log.summary()
    ranked = sorted(values)
    for q, got in ((50, found.p50_ms), (90, found.p90_ms), (99, found.p99_ms)):
        assert got == bucket(ranked[math.ceil(len(values) * q / 100) - 1]) / 1e6
    assert found.max_ms == ranked[-1] / 1e6
    assert found.count == len(values)


def test_no_lag_is_no_number() -> None:
    assert LagLog().summary() == LagSummary(count=0, p50_ms=None, p99_ms=None)


def test_histograms_merge_over_the_wire() -> None:
    engine, view = LiveHistogram(), LiveHistogram()
    engine.add_ns([1_000_000] * 90 + [50_000_000] * 10)
    view.merge(engine.encode())
    view.merge("")
    view.merge(engine.encode())
    assert view.count == 200
    p50, p99 = view.percentiles_ms(50, 99)
    assert p50 == pytest.approx(1.0, rel=0.002)
    assert p99 == pytest.approx(50.0, rel=0.002)


def test_a_histogram_loses_nothing() -> None:
    histogram = LiveHistogram()
    assert histogram.percentiles_ms(50) == [None]
    assert histogram.encode() == ""
    histogram.add_ns([0, 1, 7_200_000_000_000])
    assert histogram.count == 3
    assert histogram.percentiles_ms(100)[0] == pytest.approx(HIGHEST_US / 1e3, rel=0.002)


def clock(*values: int) -> Iterator[int]:
    return iter(values)


def test_the_tightest_bracket_gives_the_offset() -> None:
    mono = clock(0, 100, 200, 210, 300, 900)  # brackets of 100, 10 and 600 ns
    real = clock(5_090, 5_205, 5_310)
    assert measure_offset_ns(3, lambda: next(mono), lambda: next(real)) == 5_000


def test_a_step_of_the_wall_clock_is_noticed_and_reported() -> None:
    offsets = clock(1_000, 9_000, 9_000)
    offset = ClockOffset(lambda: next(offsets))
    assert offset.monotonic_ns(1_500, read_ns=600) == 500
    assert offset.drift_ns == 0
    assert offset.monotonic_ns(9_700, read_ns=750) == 700  # stepped by 8000: taken anew
    assert offset.drift_ns == 8_000
    assert offset.monotonic_ns(99_000, read_ns=800) == 800  # still impossible: the read's own time


def test_the_probe_sees_a_stall_and_the_processor_time_of_each_window() -> None:
    """Processor time that runs at half of wall time, and one stall of 30 ms."""

    async def scene() -> SelfProbe:
        first = monotonic_ns()
        probe = SelfProbe(asyncio.get_running_loop(), lambda: (monotonic_ns() - first) // 2)
        while probe.cpu_share.summary().count < 2:
            await asyncio.sleep(0.005)
            if probe.loop_lag.summary().count == 3:
                end = monotonic_ns() + 30_000_000
                while monotonic_ns() < end:
                    pass
        probe.close()
        probe.close()
        return probe

    probe = asyncio.run(scene())
    found = probe.loop_lag.summary()
    assert found.max_ms is not None
    assert found.max_ms > 19  # the alarm came due within 10 ms of the stall's beginning
    shares = probe.cpu_shares()
    assert shares is not None
    assert shares.p50 == pytest.approx(0.5, abs=0.01)
    if sys.platform.startswith("linux"):
        assert probe.cpu_wait_share is not None
        assert 0 <= probe.cpu_wait_share <= 1
        assert probe.steal_share is not None
    assert peak_rss_bytes() > 1 << 20


class PlayedAlarm:
    def __init__(self) -> None:
        self.at_ns = 0

    def set(self, at_ns: int) -> None:
        self.at_ns = at_ns

    def close(self) -> None:
        pass


def played(monkeypatch: pytest.MonkeyPatch, rings_ms: list[float], activity: Callable[[], int] | None) -> LagSummary:
    """A probe made at 0 whose alarm is served at these instants (each of them is when ``now`` is)."""
    now = [0.0]
    monkeypatch.setattr(probe_module, "monotonic_ns", lambda: round(now[0] * 1e6))
    monkeypatch.setattr(probe_module, "make_alarm", lambda loop, ring: PlayedAlarm())
    fake: Any = None
    probe = SelfProbe(fake, activity=activity)
    for now[0] in rings_ms:
        probe._ring()
    probe.close()
    return probe.loop_lag.summary()


def test_a_stall_makes_every_alarm_late_that_fell_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 ms away in 1.1 s: nine instants in a hundred were bad, not one."""
    found = played(monkeypatch, [*range(10, 1001, 10), 1105, *range(1110, 1201, 10)], None)
    assert (found.count, found.max_ms) == (120, 95.0)
    assert found.p99_ms == pytest.approx(85, rel=0.001)  # of 120 the last but one


def test_idle_time_does_not_thin_the_late_alarms_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy for half a second with a stall, then 10 s of waiting for the server to settle."""
    rings = [*range(10, 401, 10), 445, *range(450, 501, 10), *range(510, 10_001, 10)]
    reads = iter([*range(47), *[47] * 10_000])
    busy = played(monkeypatch, rings, lambda: next(reads))
    assert busy.count < 70
    assert busy.p99_ms == pytest.approx(35, rel=0.001)
    whole = played(monkeypatch, rings, None)
    assert whole.p99_ms == 0.0


def test_what_came_during_a_stall_makes_its_alarms_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing had been read for a second; what is then read came during the stall, after the late alarm was served."""
    reads = iter([0] * 101 + [1] * 10)
    rings = [*range(10, 991, 10), 1050, *range(1060, 1101, 10)]
    assert played(monkeypatch, rings, lambda: next(reads, 1)).max_ms == 50.0


def test_the_lag_of_a_wake_up_ends_when_the_loop_comes_round() -> None:
    soon: list[Callable[[], None]] = []
    fake: Any = SimpleNamespace(call_soon=soon.append)
    wake = Wake(fake)
    for at_ns in (100, 150, 180):
        wake.read(at_ns)
    assert len(soon) == 1
    soon.pop()()
    wake.read(900)
    found = wake.lag.summary()
    assert (found.count, found.max_ms) == (4, 80 / 1e6)
