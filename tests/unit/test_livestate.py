"""What is said of an arm while it runs, from deltas that are made up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pdbench.livestate import COLUMNS, WINDOW_S, ArmState, keeps, keeps_all, percentiles_ms
from pdbench.load.delta import Delta, Done
from pdbench.load.histogram import LiveHistogram
from pdbench.load.lag import LagSummary
from pdbench.measure.latency import percentile
from pdbench.measure.slo import parse_objective, parse_objectives

MS = 1_000_000
SLO = [
    "ttft p90 <= 100ms",
    "tpot p90 <= 10ms",
    "tbt p90 <= 20ms",
    "worst_gap p99 <= 50ms",
    "errors <= 10%",
    "ttst p50 <= 1s",
]


def done(
    ttft: float = 50, tpot: float | None = 5, gap: float | None = 8, status: str = "ok", *, warmup: bool = False
) -> Done:
    if status != "ok":
        return Done(status, None, None, 0, "no luck", warmup=warmup)
    return Done("ok", ttft, ttft + 100, 9, "", tpot_ms=tpot, worst_gap_ms=gap, warmup=warmup)


def hdr(*values_ms: float) -> str:
    found = LiveHistogram()
    found.add_ns([round(value * MS) for value in values_ms])
    return found.encode()


def delta(
    *ended: Done, t_s: float = 1.0, gaps: tuple[float, ...] = (), lag: float | None = 0.1, **changes: Any
) -> Delta:
    known: dict[str, Any] = {
        "t_s": t_s, "planned": 9, "offered": 4, "sent": 4, "ok": 3, "failed": 1, "in_flight": 0, "waiting": 0,
        "tokens": 9,
        "dispatch_lag": LagSummary(p99_ms=lag), "client_lag": LagSummary(p99_ms=0.2),
        "ttft_hdr": hdr(*(one.ttft_ms for one in ended if one.ttft_ms and not one.warmup)), "tbt_hdr": hdr(*gaps),
        "done": list(ended),
    }  # fmt: skip
    return Delta(**known | changes)


@pytest.mark.parametrize(
    ("one", "objective", "kept"),
    [
        (done(100), "ttft p90 <= 100ms", True),
        (done(100.1), "ttft p90 <= 100ms", False),
        (done(status="timeout"), "ttft p90 <= 100ms", False),
        (done(tpot=None), "tpot p90 <= 10ms", None),  # one token has no TPOT
        (done(status="error"), "tpot p90 <= 10ms", False),
        (done(gap=51), "worst_gap p99 <= 50ms", False),
        (done(), "e2e p90 <= 200ms", True),
        (done(), "ttst p90 <= 200ms", None),  # not told while it runs
        (done(), "errors <= 1%", True),
        (done(status="rejected"), "errors <= 1%", False),
    ],
)
def test_a_request_keeps_a_limit(one: Done, objective: str, kept: bool | None) -> None:
    assert keeps(one, parse_objective(objective)) is kept


def test_all_limits_at_once() -> None:
    objectives = parse_objectives(SLO)
    assert keeps_all(done(), objectives)
    assert keeps_all(done(tpot=None, gap=None), objectives), "what does not apply is not missed"
    assert not keeps_all(done(tpot=11), objectives)
    assert not keeps_all(done(status="timeout"), objectives)


def test_objectives_are_judged_as_far_as_requests_tell() -> None:
    state = ArmState("a", parse_objectives(SLO))
    assert [one.word for one in state.judged()] == ["undecided"] * 5 + ["later"]
    assert state.joint().share is None
    state.begin(0, [0] * 60, 0.0)
    state.take(delta(*[done(900, warmup=True)] * 30, *[done()] * 3, done(200), gaps=(5, 5, 5, 30)), 1.0)
    ttft, tpot, tbt, gap, errors, ttst = state.judged()
    assert (ttft.share, ttft.requests, ttft.word) == (0.75, 4, "undecided")
    assert ttft.interval is not None
    assert ttft.interval[0] < 0.75 < ttft.interval[1]
    assert (tpot.share, tbt.share, gap.share, errors.share, ttst.share) == (1.0, 0.75, 1.0, 1.0, None)
    assert (state.joint().share, state.ended) == (0.75, 4)
    state.take(delta(*[done()] * 60), 2.0)
    assert state.judged()[0].word == "met"
    state.take(delta(*[done(status="error")] * 60), 3.0)
    assert [one.word for one in state.judged()] == ["missed"] * 5 + ["later"]
    assert (state.ended, state.failed_measured) == (124, 60)


def test_a_point_looks_back_so_far_and_the_rest_is_counted() -> None:
    state = ArmState("a", parse_objectives(SLO))
    broken = state.begin(1, [0, MS, 1500 * MS], at_s=4.0)
    assert broken == dict.fromkeys(COLUMNS) | {"t": 4.0}
    first = state.take(delta(done(200), gaps=(30,), t_s=1.0), 5.0, {"queue_prefill": 3.0, "other": 1.0})
    assert (first["joint"], first["planned"], first["due"], first["done"]) == (0.0, 2.0, 4.0, 4.0)
    assert (first["queue_prefill"], first["busy_decode"]) == (3.0, None)
    assert first["ttft90"] == pytest.approx(200, rel=0.01)
    second = state.take(delta(done(20), t_s=2.0), 5.0 + WINDOW_S - 0.1)
    assert (second["joint"], second["planned"]) == (0.5, 3.0)
    third = state.take(delta(done(20), t_s=3.0), 5.0 + WINDOW_S + 0.1)
    assert (third["joint"], third["tbt90"]) == (1.0, None)
    assert third["ttft90"] == pytest.approx(20, rel=0.01)
    assert state.spreads_ms()["ttft"][2] == pytest.approx(200, rel=0.01), "percentiles are those of all"


@pytest.mark.parametrize(
    ("values", "failed", "expected"),
    [
        ([], 0, [None, None, None]),
        ([], 2, [math.inf] * 3),
        ([10, 20, 30, 40], 0, [20, 40, 40]),
        ([10] * 9, 1, [10, 10, math.inf]),
        ([10] * 8 + [20], 2, [10, math.inf, math.inf]),
        ([10, 20], 3, [math.inf] * 3),
    ],
)
def test_a_failed_request_is_infinitely_late(values: list[float], failed: int, expected: list[float | None]) -> None:
    found = LiveHistogram()
    found.merge(hdr(*values))
    assert percentiles_ms(found, failed, 50.0, 90.0, 99.0) == [
        one if one is None else pytest.approx(one, rel=0.01) for one in expected
    ]
    for q, one in zip((50.0, 90.0, 99.0), expected, strict=True):
        if one is not None:
            assert percentile([*values, *[math.inf] * failed], q) == one, "as in the document"


def test_live_percentiles_agree_with_the_document_when_requests_fail() -> None:
    state = ArmState("a", parse_objectives(SLO))
    state.begin(0, [0] * 9, 0.0)
    point = state.take(delta(*[done(50)] * 5, *[done(status="timeout")] * 5, gaps=(5,)), 1.0)
    assert point["ttft50"] == pytest.approx(50, rel=0.01)
    assert point["ttft90"] == math.inf
    spreads = state.spreads_ms()
    assert spreads["ttft"][1:] == spreads["tpot"][1:] == [math.inf, math.inf]
    assert spreads["tbt"] == [pytest.approx(5, rel=0.01)] * 3, "gaps were there"
    other = ArmState("b", parse_objectives(SLO))
    other.begin(0, [0] * 9, 0.0)
    other.take(delta(done(status="error"), done(status="error", warmup=True)), 1.0)
    assert other.spreads_ms() == {name: [math.inf] * 3 for name in ("ttft", "tpot", "tbt")}


def test_a_late_client_is_told_of() -> None:
    state = ArmState("a", parse_objectives(["ttft p90 <= 100ms"]))
    state.begin(0, [0], 0.0)
    state.take(delta(lag=4.9), 1.0)
    assert state.late() == ""
    state.take(delta(lag=5.1), 2.0)
    state.take(delta(lag=None), 3.0)
    assert "5.1 ms exceeds 5 ms" in state.late()
