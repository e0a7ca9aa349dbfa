"""The judge of the benchmarks, on logs made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.judge import Judged, Seen, Target, judge, quantile
from benchmarks.truth.server import Served, parse_log, stalls

MS = 1_000_000


def served(name: str, writes_ms: list[float], tokens: list[int] | None = None, received_ms: float = 0.0) -> Served:
    before = np.array([round(at * MS) for at in writes_ms], dtype=np.int64)
    counts = np.array(tokens or [1] * len(before), dtype=np.int64)
    return Served(
        name, "truth", round(received_ms * MS), before, before, before + 10_000, counts, 8, int(counts.sum()), 0
    )


def seen(name: str, chunks_ms: list[float], *, sent_ms: float = 0.0, output_tokens: int | None = None) -> Seen:
    return Seen(name, 0, round(sent_ms * MS), [round(at * MS) for at in chunks_ms], [], output_tokens)


def one(client: Seen, truth: Served) -> Judged:
    return judge([client], {truth.request_id: truth})


def test_a_perfect_client_has_no_error() -> None:
    found = one(seen("a", [50, 70, 90]), served("a", [50, 70, 90]))
    assert not found.missing
    assert found.events == 3
    for metric in ("service_ttft", "ttft", "tbt", "tpot", "worst_gap"):
        assert found.off_us(metric, 90) == 0
    assert not found.outside.any()


@pytest.mark.parametrize(
    ("client", "metric", "off_us"),
    [
        (seen("a", [50.2, 70.2, 90.2]), "service_ttft", 200),
        (seen("a", [50.2, 70.2, 90.2]), "tbt", 0),
        (seen("a", [50, 70, 90], sent_ms=1.0), "service_ttft", 1000),
        (seen("a", [51, 71, 91], sent_ms=1.0), "ttft", 1000),  # a late send is an error from the intended time
        (seen("a", [51, 71, 91], sent_ms=1.0), "service_ttft", 0),
        (seen("a", [50, 70, 95]), "worst_gap", 5000),
    ],
)
def test_errors_are_the_distance_of_percentiles(client: Seen, metric: str, off_us: float) -> None:
    assert one(client, served("a", [50, 70, 90])).off_us(metric, 90) == pytest.approx(off_us)


def test_errors_of_single_events_do_not_cancel() -> None:
    found = one(seen("a", [50, 71, 90]), served("a", [50, 70, 90]))
    assert found.off_us("tbt", 50) == pytest.approx(1000)
    assert found.tbt_error.tolist() == [MS, MS]
    assert found.stamp.tolist() == [0, MS, 0]


def test_a_stamp_inside_the_send_is_not_outside_it() -> None:
    found = one(seen("a", [50.004, 70.015, 89.999]), served("a", [50, 70, 90]))
    assert found.outside.tolist() == [0, 5_000, 1_000]


def test_two_tokens_an_event_halve_the_tpot() -> None:
    truth = served("a", [50, 70, 90], tokens=[2, 2, 2])
    right = Seen("a", 0, 0, [50 * MS, 70 * MS, 90 * MS], [2, 2, 2], 6)
    assert one(right, truth).off_us("tpot", 50) == 0
    naive = Seen("a", 0, 0, right.chunk_ns, [], None)
    assert one(naive, truth).off_us("tpot", 50) == pytest.approx(10_000)


@pytest.mark.parametrize(
    "client",
    [seen("b", [50, 70]), seen("a", [50]), seen("a", []), seen("a", [50, 70], output_tokens=3)],
    ids=["unknown", "an event less", "nothing", "miscounted"],
)
def test_what_was_seen_otherwise_than_written_is_named(client: Seen) -> None:
    found = one(client, served("a", [50, 70]))
    assert found.missing == [client.request_id]
    assert found.events == 0
    assert math.isnan(found.off_us("tbt", 90))


def test_nearest_rank() -> None:
    assert [quantile(range(1, 101), q) for q in (50, 90, 99, 99.5)] == [50, 90, 99, 100]
    assert math.isnan(quantile([], 50))


@pytest.mark.parametrize(("measured", "at_most", "met"), [(1.0, True, True), (1.1, True, False), (0.9, False, False)])
def test_targets(measured: float, at_most: bool, met: bool) -> None:
    target = Target("x", 1.0, measured, "us", at_most)
    assert target.met is met
    assert target.line.startswith("met " if met else "missed ")


def test_what_was_not_measured_meets_nothing() -> None:
    assert not Target("x", 1.0, math.nan, "us").met
    assert not Target("x", 1.0, math.nan, "us", at_most=False).met


def test_a_log_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer"):
        parse_log(b"\0" * 7)


def test_one_gap_in_a_hundred_is_a_stall() -> None:
    drawn = [stalls(f"r{i}", event) for i in range(100) for event in range(1, 101)]
    assert 0.008 < sum(drawn) / len(drawn) < 0.012
