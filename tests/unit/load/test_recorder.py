"""What a record says of the read that ended a request's longest gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import pdbench.load.probe as probe_module
from pdbench.load.histogram import LiveHistogram
from pdbench.load.probe import SelfProbe
from pdbench.load.recorder import Recorder, worst_gap_lag_ns
from pdbench.measure.records import RequestRecord
from tests.unit.load.test_fleet_parts import job

MS = 1_000_000


@pytest.mark.parametrize(
    ("chunks", "lags", "away", "found"),
    [
        ([10, 20, 30, 40], [1, 1, 1, 1], 0, 0),  # nothing merged
        ([10, 20, 40, 40, 50], [1, 1, 15, 1], 0, 15),  # the longest gap ends where two came in one read
        ([10, 20, 40, 40, 50], [1, 1, 2, 1], 25, 25),  # it had just been read: the alarms know better
        ([10, 30, 40, 40, 50], [1, 9, 9, 9], 25, 0),  # another gap is longer, and its stamp is right
        ([10, 10, 20, 31], [9, 9, 9], 9, 0),  # the first read held two: no gap ends there
        ([10, 20, 40], [1, 1, 9], 9, 0),
        ([10, 10], [9], 9, 0),
        ([], [], 9, 0),
        ([10, 20, 40, 40], [], 9, 0),  # the user's clock
    ],
)
def test_the_lag_of_the_worst_gap(chunks: list[int], lags: list[int], away: int, found: int) -> None:
    stamps = sorted(set(chunks))[: len(lags)]
    assert worst_gap_lag_ns(chunks, stamps, lags, lambda read_ns: away) == found


class Alarm:
    def set(self, at_ns: int) -> None:
        pass

    def close(self) -> None:
        pass


def probe_after(monkeypatch: pytest.MonkeyPatch, rings_ms: Sequence[float]) -> SelfProbe:
    now = [0.0]
    monkeypatch.setattr(probe_module, "monotonic_ns", lambda: round(now[0] * 1e6))
    monkeypatch.setattr(probe_module, "make_alarm", lambda loop, ring: Alarm())
    loop: Any = None
    probe = SelfProbe(loop)
    for now[0] in rings_ms:
        probe._ring()
    return probe


@pytest.mark.parametrize(
    ("read_ms", "away_ms"),
    [(15, 0), (29, 0), (31, 25), (55, 25), (56, 25), (66, 0), (105, 5), (75, 0)],
)
def test_the_alarms_say_how_long_the_client_was_away(
    monkeypatch: pytest.MonkeyPatch, read_ms: float, away_ms: float
) -> None:
    """Away from 30 to 55 ms, and from 100 to 105; 0.5 ms at 80 is a wake-up."""
    probe = probe_after(monkeypatch, [10, 20, 55, 60, 70, 80.5, 90, 105, 110])
    assert probe.away_ns(round(read_ms * 1e6)) == away_ms * 1e6


def recorder_of_nothing() -> Recorder:
    nothing: Any = None
    return Recorder(job(3), nothing, nothing)


def test_what_a_delta_tells_of_a_request() -> None:
    """TPOT as the metrics have it (the first chunk's tokens left out), gaps by read, the warm-up apart."""
    recorder = recorder_of_nothing()
    known: dict[str, Any] = {"planned_prompt_tokens": 1, "planned_output_tokens": 6, "sent_ns": 0, "end_ns": 1}
    stamps = [20 * MS, 30 * MS, 60 * MS]
    chunks: dict[str, Any] = {"chunk_ns": stamps, "chunk_tokens": [2, 2, 2]}
    for index, more in enumerate(
        (
            {"status": "ok", **chunks},
            {"status": "ok", **chunks, "warmup": True},
            {"status": "ok", "chunk_ns": stamps[:1], "chunk_tokens": [2]},
            {"status": "timeout", **chunks},
        )
    ):
        recorder._live(RequestRecord(index=index, scheduled_ns=10 * MS, **known, **more))
    ttft, tbt, done = recorder.interval()
    first, warmup, one_chunk, late = done
    assert (first.ttft_ms, first.e2e_ms, first.tpot_ms, first.worst_gap_ms, first.tokens) == (10.0, 50.0, 10.0, 30.0, 6)
    assert (warmup.warmup, warmup.ttft_ms) == (True, 10.0)
    assert (one_chunk.tpot_ms, one_chunk.worst_gap_ms) == (None, None)
    assert (late.status, late.ttft_ms, late.tpot_ms) == ("timeout", None, None)
    kept = LiveHistogram()
    kept.merge(ttft)
    assert kept.count == 2, "two measured requests ended well"
    kept.merge(tbt)
    assert kept.count == 2 + 4, "gaps also of the one that did not end"
    assert recorder.interval()[2] == []
