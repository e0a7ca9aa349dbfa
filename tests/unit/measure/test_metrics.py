"""Hand-computed numbers: each mutant of a definition (warm-up in, failures out, ms for s) breaks a row here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.measure.metrics import gaps_ns, handoff_gap_ms, percentile, request_metrics, summarise
from pdbench.measure.records import RequestRecord
from pdbench.measure.slo import parse_objectives
from tests.unit.measure.helpers import MS, frames, request

SLO = ["ttft p90 <= 400ms", "tpot p90 <= 40ms", "tbt p90 <= 20ms", "worst_gap p90 <= 100ms", "errors <= 1%"]


def summary(*records: RequestRecord, slo: list[str] = SLO, devices: int = 2, **options: Any) -> dict[str, Any]:
    return summarise(*frames(*records), parse_objectives(slo), devices, **options)


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 90, 9),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 91, 10),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 50, 5),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 100, 10),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 1, 1),
        ([3, 1, 2], 50, 2),
        ([7], 99, 7),
        ([1, math.inf], 50, 1),
        ([1, math.inf], 51, math.inf),
        ([1, math.nan, 3], 100, 3),
        (list(range(1, 1001)), 99.9, 999),
    ],
)
def test_nearest_rank(values: list[float], q: float, expected: float) -> None:
    assert percentile(values, q) == expected


@pytest.mark.parametrize("q", [0, -1, 100.1])
def test_percentile_out_of_range(q: float) -> None:
    with pytest.raises(ValueError, match="q must be"):
        percentile([1], q)


def test_percentile_of_nothing_is_nan() -> None:
    assert math.isnan(percentile([], 90))
    assert math.isnan(percentile([math.nan], 90))


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_q_percent_do_not_exceed(values: list[float], q: float) -> None:
    found = percentile(values, q)
    assert found in values
    assert np.mean(np.array(values) <= found) >= q / 100 - 1e-9


def test_one_request_by_hand() -> None:
    # Due at 1000, sent at 1000.1; chunks of 1, 2, 1 tokens at 1300, 1310, 1340.
    row = request_metrics(*frames(request(0, 300, [10, 30], tokens=[1, 2, 1]))).iloc[0]
    assert row["ttft_ns"] == 300 * MS
    assert row["service_ttft_ns"] == pytest.approx(299.9 * MS)
    assert row["tpot_ns"] == pytest.approx(40 * MS / 3)
    assert row["worst_gap_ns"] == 30 * MS
    assert row["ttst_ns"] == 310 * MS
    assert row["handoff_gap_ns"] == 10 * MS
    assert row["e2e_ns"] == 340 * MS
    assert row["tbt_cv"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("tokens", "output_tokens", "tpot_ms"),
    [
        ([1, 1, 1], None, 20.0),
        ([2, 1, 1], None, 20.0),
        ([1, 1, 1], 9, 5.0),  # usage reports 9 tokens: 40 ms over 8
        ([3, 1, 1], 3, math.nan),  # N <= n_first
        ([3, 1, 1], 2, math.nan),
    ],
)
def test_tpot(tokens: list[int], output_tokens: int | None, tpot_ms: float) -> None:
    record = request(0, 100, [10, 30], tokens=tokens, output_tokens=output_tokens)
    found = request_metrics(*frames(record))["tpot_ns"].iloc[0]
    assert found == pytest.approx(tpot_ms * MS, nan_ok=True)


def test_one_chunk_has_no_tpot_even_where_usage_reports_many() -> None:
    row = request_metrics(*frames(request(0, 100, tokens=[1], output_tokens=64))).iloc[0]
    for name in ("tpot_ns", "worst_gap_ns", "ttst_ns", "handoff_gap_ns"):
        assert math.isnan(row[name]), name
    assert row["ttft_ns"] == 100 * MS


@pytest.mark.parametrize("status", ["error", "timeout", "rejected", "cancelled", "unfinished"])
def test_what_did_not_complete_is_infinite(status: Any) -> None:
    row = request_metrics(*frames(request(0, 1, [1, 1], status=status))).iloc[0]
    for name in ("ttft_ns", "service_ttft_ns", "tpot_ns", "worst_gap_ns", "ttst_ns", "handoff_gap_ns", "e2e_ns"):
        assert row[name] == math.inf, name


def test_ok_without_a_token_did_not_complete() -> None:
    entry = summary(request(0, None), request(1, 10, [5]))
    assert entry["requests"] == {"scheduled": 2, "ok": 1, "failed": 1, "warmup": 0}


def test_gaps_are_raw_and_stay_inside_their_request() -> None:
    _, one = frames(request(0, 10, [1, 2]), request(1, 500, [3]), arm="a")
    _, two = frames(request(0, 10, [4]), arm="a", pair=1)
    tokens = pd.concat([one, two])
    interleaved = tokens.sort_values("t_ns", kind="stable")
    assert sorted(gaps_ns(tokens)) == sorted(gaps_ns(interleaved)) == [1 * MS, 2 * MS, 3 * MS, 4 * MS]


def test_the_arm_by_hand() -> None:
    entry = summary(
        request(0, 9000, [900], warmup=True),
        request(1, 100, [10, 20], scheduled=1000),
        request(2, 500, [10, 10, 10], scheduled=1100),
        request(3, 100, scheduled=1200),
        request(4, 50, [5, 25], scheduled=1300, status="timeout"),
    )
    assert entry["requests"] == {"scheduled": 4, "ok": 3, "failed": 1, "warmup": 1}
    assert entry["statuses"] == {"ok": 3, "timeout": 1}
    assert entry["ttft_ms"] == {"p50": 100.0, "p90": None, "p99": None}
    assert entry["tpot_ms"] == {"p50": 15.0, "p90": None, "p99": None}
    # Seven gaps: 5 10 10 10 10 20 25; the failed request's stay in.
    assert entry["tbt_ms"] == {"p50": 10.0, "p90": 25.0, "p99": 25.0}
    assert entry["attainment"] == {
        "joint": 0.5,
        "ttft p90 <= 400ms": 0.5,
        "tpot p90 <= 40ms": pytest.approx(2 / 3),
        "tbt p90 <= 20ms": pytest.approx(6 / 7),
        "worst_gap p90 <= 100ms": pytest.approx(2 / 3),
        "errors <= 1%": 0.75,
    }
    assert not any(entry["slo_met"].values())
    assert entry["not_applicable"] == {
        "ttft p90 <= 400ms": 0,
        "tpot p90 <= 40ms": 1,
        "worst_gap p90 <= 100ms": 1,
    }
    # From 1000 (first measured due time) to 1630 (last token): 0.63 s.
    assert entry["throughput"] == {
        "requests_per_s": pytest.approx(3 / 0.63, rel=1e-6),
        "input_tokens_per_s": pytest.approx(300 / 0.63, rel=1e-6),
        "output_tokens_per_s": pytest.approx(8 / 0.63, rel=1e-6),
        "good_requests_per_s": pytest.approx(2 / 0.63, rel=1e-6),
        "good_requests_per_s_per_device": pytest.approx(1 / 0.63, rel=1e-6),
    }
    assert entry["dispatch_lag_ms"] == {"p50": 0.1, "p99": 0.1, "max": 0.1}
    assert entry["jitter"]["tbt_p99_over_p50"] == 2.5
    assert entry["tokens_per_chunk"] == 1.0


def test_two_marginal_ninety_percent_are_eighty_jointly() -> None:
    slow_first = [request(0, 500, [10, 10])]
    slow_after = [request(1, 100, [90, 90])]
    fine = [request(i, 100, [10, 10]) for i in range(2, 10)]
    entry = summary(*slow_first, *slow_after, *fine, slo=["ttft p90 <= 400ms", "tpot p90 <= 40ms"])
    assert entry["attainment"] == {"joint": 0.8, "ttft p90 <= 400ms": 0.9, "tpot p90 <= 40ms": 0.9}
    assert all(entry["slo_met"].values())


def test_a_limit_is_kept_when_it_is_reached_exactly() -> None:
    entry = summary(request(0, 400, [40, 40]), slo=["ttft p90 <= 400ms", "tpot p90 <= 40ms"])
    assert entry["attainment"]["joint"] == 1.0
    entry = summary(request(0, 400.000001, [40, 40]), slo=["ttft p90 <= 400ms", "tpot p90 <= 40ms"])
    assert entry["attainment"]["joint"] == 0.0


def test_errors_within_their_budget() -> None:
    fine = [request(i, 100, [10]) for i in range(99)]
    assert summary(*fine, request(99, None, status="error"), slo=["errors <= 1%"])["slo_met"]["errors <= 1%"]
    two = [request(98 + i, None, status="error") for i in range(2)]
    assert not summary(*fine[:98], *two, slo=["errors <= 1%"])["slo_met"]["errors <= 1%"]


def test_one_token_answers_are_judged_on_the_rest() -> None:
    entry = summary(request(0, 100), slo=["ttft p90 <= 400ms", "tpot p90 <= 40ms"])
    assert entry["attainment"] == {"joint": 1.0, "ttft p90 <= 400ms": 1.0}
    assert entry["slo_met"] == {"ttft p90 <= 400ms": True, "tpot p90 <= 40ms": False}
    assert "tpot_ms" not in entry


def test_a_dead_server_is_a_miss_and_not_a_gap_in_the_measurement() -> None:
    entry = summary(request(0, None, status="error"), request(1, None, status="error"))
    assert entry["attainment"]["joint"] == 0.0
    assert entry["attainment"]["tbt p90 <= 20ms"] == 0.0
    assert entry["tbt_ms"] == {"p50": None, "p90": None, "p99": None}


def test_runs_are_pooled_and_windows_add_up() -> None:
    one = frames(request(0, 100, scheduled=1000), request(1, 100, scheduled=1900), pair=0)
    two = frames(request(0, 300, scheduled=9000), request(1, 300, scheduled=9700), pair=1)
    requests, tokens = (pd.concat(pair) for pair in zip(one, two, strict=True))
    entry = summarise(requests, tokens, [], 1)
    assert entry["requests"]["scheduled"] == 4
    assert entry["ttft_ms"] == {"p50": 100.0, "p90": 300.0, "p99": 300.0}
    assert entry["throughput"]["requests_per_s"] == pytest.approx(4 / 2.0)
    assert entry["attainment"] == {}


def test_a_request_twice_is_refused() -> None:
    one = frames(request(0, 100))
    with pytest.raises(ValueError, match="twice"):
        summarise(pd.concat([one[0], one[0]]), one[1], [], 1)


def test_client_lag_from_kernel_stamps_or_from_the_probe() -> None:
    assert summary(request(0, 1, user_lag_ns=[1000, 3000]))["client_lag_ms"]["max"] == 0.003
    probe = {"p50": 0.1, "p99": 0.2, "max": 0.3}
    assert summary(request(0, 1), client_lag_ms=probe)["client_lag_ms"] == probe
    assert "client_lag_ms" not in summary(request(0, 1))


def test_handoff_gap_of_completed_requests() -> None:
    found = handoff_gap_ms(*frames(request(0, 1, [7, 1]), request(1, 1, [9], status="error"), request(2, 1)))
    assert found == {"p50": 7.0, "p90": 7.0, "p99": 7.0}


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 2000), st.lists(st.integers(0, 300), max_size=6), st.sampled_from(["ok", "error"]), st.booleans()
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(REQUESTS)
def test_invariants(drawn: list[tuple[int, list[float], Any, bool]]) -> None:
    records = [request(i, ttft, gaps, status=status, warmup=warm) for i, (ttft, gaps, status, warm) in enumerate(drawn)]
    entry = summary(*records)
    counts = entry["requests"]
    assert counts["ok"] + counts["failed"] == counts["scheduled"]
    assert counts["scheduled"] + counts["warmup"] == len(records)
    if counts["scheduled"]:
        shares = entry["attainment"]
        marginal = [shares[t] for t in ("ttft p90 <= 400ms", "errors <= 1%")]
        assert 0 <= shares["joint"] <= min(marginal) + 1e-12
        assert len(gaps_ns(frames(*records)[1])) == sum(len(gaps) for _, gaps, _, _ in drawn)


@settings(max_examples=30, deadline=None)
@given(REQUESTS, st.integers(-(10**6), 10**6))
def test_metrics_do_not_depend_on_when_the_clock_started(drawn: list[Any], shift: int) -> None:
    def made(at: float) -> dict[str, Any]:
        return summary(*[request(i, t, g, status=s, scheduled=at) for i, (t, g, s, _) in enumerate(drawn)])

    assert made(2_000_000) == made(2_000_000 + shift)
