"""Hand-off, interference, SLO surface, rates, cost and trend: what is drawn, and what is said where nothing is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pdbench.errors import UsageError
from pdbench.measure.attainment import meets_jointly
from pdbench.measure.latency import measured, request_metrics
from pdbench.measure.slo import parse_objectives
from pdbench.stored import StoredRun, open_run
from pdbench.views.cost import cost
from pdbench.views.grid import flip_cells, grid
from pdbench.views.handoff import handoff
from pdbench.views.interference import interference
from pdbench.views.rates import rates
from pdbench.views.trend import date_of, trend
from tests.unit.documents import INVALID, VALID, arm, change, compare_document
from tests.unit.measure.helpers import frames, request
from tests.unit.measure.serverhelp import lifecycle, server
from tests.unit.storedhelp import interference_run
from tests.unit.views.test_numbers import numbers


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return open_run(str(interference_run(tmp_path_factory.mktemp("pictures"))))


def test_the_parts_of_a_handoff_by_hand() -> None:
    row = lifecycle("r0", [60, 85, 95], arrive=2, prefill=(10, 60), transfer=(63, 70), admit=75, workers=(0, 1))
    warm = lifecycle("r1", [60, 85], arrive=2, prefill=(50, 60))
    found = handoff(server(row, warm).assign(warmup=[False, True]))
    assert {name: values.tolist() for name, values in found.parts_ms.items()} == {
        "prefill_queue": [8], "prefill": [50], "staging_wait": [3], "transfer": [7], "decode_queue": [5],
        "first_decode_step": [10],
    }  # fmt: skip
    assert found.table["prefill"] == (50, 50)
    assert (found.requests, found.transfers, found.note) == (1, 1, "")
    assert handoff(server(warm)).note.startswith("no request was handed over")
    assert handoff(pd.DataFrame()).note.startswith("no server data")


def test_interference_by_arm(run: StoredRun) -> None:
    mixed = interference(run.lifecycles("colocated"), run.steps("colocated"))
    assert mixed.disturbed >= 6
    assert mixed.bins[0].low == mixed.bins[0].high == 0
    assert mixed.bins[0].median_ms == 10
    assert mixed.bins[-1].median_ms == pytest.approx(210)
    assert mixed.tokens.max() == 400
    assert sum(one.count for one in mixed.bins) == mixed.gaps
    split = interference(run.lifecycles("disaggregated"), run.steps("disaggregated"))
    assert split.disturbed == 0
    assert "nothing can interfere" in split.note
    assert interference(pd.DataFrame(), pd.DataFrame()).note.startswith("no server data")


SLO = ["ttft p90 <= 40ms", "tpot p90 <= 12ms", "e2e p99 <= 90ms", "errors <= 1%"]


def test_the_surface_counts_as_the_metrics_do() -> None:
    objectives = parse_objectives(SLO)
    tables = {
        name: frames(
            *[request(i, shift + i, [step + i % 5] * 3, status="error" if i == 7 else "ok") for i in range(20)],
            request(90, 1, warmup=True),
        )
        for name, shift, step in (("base", 25, 8.0), ("head", 35, 9.0))
    }
    found = grid({name: numbers(*table) for name, table in tables.items()}, objectives, size=6)
    assert found is not None
    assert (found.rows, found.columns, found.fixed) == ("ttft", "tpot", ("worst_gap", math.inf))
    assert found.slo is not None
    assert found.rows_ms[found.slo[0]] == 40
    assert found.columns_ms[found.slo[1]] == 12
    for name, table in tables.items():
        derived = request_metrics(*measured(*table))
        assert found.joint[name][found.slo] == np.mean(meets_jointly(derived, objectives))
        assert (np.diff(found.joint[name], axis=0) >= 0).all()
        assert (np.diff(found.joint[name], axis=1) >= 0).all()
    (lead,) = found.leads
    assert lead.points == pytest.approx(100 * (found.joint["head"] - found.joint["base"]))
    assert found.requests == {"base": 20, "head": 20}


def test_axes_follow_the_slo() -> None:
    one = {"a": numbers(*frames(request(0, 10, [5, 6]), request(1, 20, [5, 60])))}
    found = grid(one, parse_objectives(["worst_gap p90 <= 50ms"]), size=4)
    assert found is not None
    assert (found.columns, found.slo, found.leads) == ("worst_gap", None, ())
    swapped = grid(one, parse_objectives(["ttft p90 <= 15ms"]), rows="tpot", columns="ttft", size=4)
    assert swapped is not None
    assert swapped.joint["a"].shape == (len(swapped.rows_ms), len(swapped.columns_ms))
    assert grid({}, []) is None
    assert grid({"a": numbers(*frames(request(0, 1, warmup=True)))}, []) is None
    dead = grid({"a": numbers(*frames(request(0, None, status="error")))}, [])
    assert dead is not None
    assert dead.joint["a"].tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("leads", "flips"),
    [
        ([[1, 1, 0]], [[0, 0, 0]]),
        ([[1, -1, 0]], [[1, 1, 0]]),
        ([[1, 0, -1], [1, 1, 1]], [[1, 1, 1], [0, 0, 1]]),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    ],
)
def test_where_the_lead_changes(leads: list[list[int]], flips: list[list[int]]) -> None:
    assert flip_cells(np.array(leads, dtype=np.int8)).astype(int).tolist() == flips


def trial(rate: float, joint: float | None, seed: int, used: bool = True) -> dict[str, Any]:
    return {"rate": rate, "joint": joint, "seed": seed, "used": used, "scheduled": 50, "ok": 50, "failed": 0}


def search(goodput: dict[str, Any] | None, *trials: dict[str, Any]) -> dict[str, Any]:
    entry = {"devices": 2, "goodput": goodput, "runs": list(trials)}
    return {"kind": "search", "share": 0.9, "arms": {"a": entry}}


def test_rates_of_a_search() -> None:
    found = rates(
        search(
            {"where": "resolved", "rate": 2.4, "interval": [2.2, None]},
            trial(3.0, 0.7, 0), trial(2.0, 0.98, 0), trial(2.0, 1.0, 1), trial(2.5, None, 0, used=False),
            trial(3.0, 0.1, 1, used=False),
        )
    )[0]  # fmt: skip
    assert [point.rate for point in found.points] == [2.0, 2.5, 3.0]
    assert [point.valid for point in found.points] == [True, False, True]
    assert found.joint.tolist() == [0.99, 0.7]
    low, high = found.points[0].interval or (0, 0)
    assert low == pytest.approx(0.99 - 12.706 * 0.02 / math.sqrt(2), abs=1e-3)  # not below one request of 50
    assert high == 1
    assert found.points[2].interval is None
    assert (found.points[2].runs, found.points[2].left_out) == (1, 1)
    assert (found.goodput, found.interval, found.note) == (2.4, (2.2, None), "")
    assert len(found.runs) == 4


@pytest.mark.parametrize(
    ("goodput", "note"),
    [
        (None, "no run was VALID"),
        ({"where": "above", "rate": 8.0, "interval": [None, None]}, "more than 8 req/s"),
        ({"where": "below", "rate": 1.0, "interval": [None, None]}, "less than 1 req/s"),
        ({"where": "resolved", "rate": 1.0, "interval": [None, None]}, "too few seeds"),
    ],
)
def test_searches_that_found_less(goodput: dict[str, Any] | None, note: str) -> None:
    assert note in rates(search(goodput, trial(1.0, None, 0, used=False)))[0].note
    assert rates({"kind": "compare", "arms": {}}) == []


def test_the_cost_of_a_good_request() -> None:
    entry = {"devices": 2, "throughput": {"good_requests_per_s": 4.0}}
    plain = cost(entry)
    assert plain is not None
    assert (plain.device_seconds, plain.per_thousand) == (0.5, None)
    priced = cost(entry, 3.6)
    assert priced is not None
    assert priced.per_thousand == pytest.approx(0.5)
    for none in ({}, {"devices": 2, "throughput": {"good_requests_per_s": 0.0}}, {"devices": 2}):
        assert cost(none, 1.0) is None
    with pytest.raises(UsageError, match="is not one"):
        cost(entry, -1.0)


def test_a_trend_goes_by_date() -> None:
    late = compare_document({"base": arm(0.8), "head": arm(0.9, ttft=None)}, [change("head", "ttft_p90", "worse")])
    early = {**late, "run": "20251231T235959Z-chat-abcdefg", "validity": INVALID}
    undated = {**early, "run": "by hand"}
    gate = {
        **early, "kind": "gate", "run": "20260103T000000Z-chat-1", "base": "old", "head": "new", "comparisons": [],
        "validity": VALID,
        "metrics": {"ttft_p90": {"primary": True, "scale": "log_ratio", "effect": 0.1, "lower": 0.0, "upper": 0.2,
                                 "status": "FAIL"}},
    }  # fmt: skip
    other = {"kind": "tune", "run": "t", "arms": {}}
    found = trend([undated, gate, late, other, early])
    assert [point.run for point in found.of("head")] == [early["run"], late["run"], gate["run"], "by hand"]
    assert [point.valid for point in found.of("head")] == [False, True, True, False]
    assert found.of("head")[1].figures["ttft_p90"] is None
    assert found.of("base")[1].figures["worst_gap_p90"] == 50
    # Of what is INVALID, no verdict is repeated, whatever was stored.
    assert [(one.metric, one.verdict) for one in found.verdicts] == [("ttft_p90", "worse"), ("ttft_p90", "FAIL")]
    assert found.verdicts[1].interval == (0.0, 0.2)
    assert found.notes == ("t: a tune without latencies",)
    assert found.arms == ["base", "head"]
    elsewhere = {**late, "workload": {"name": "long"}}
    assert "several workloads" in trend([late, elsewhere]).notes[0]


@pytest.mark.parametrize("name", ["chat", "20261399T000000Z-chat-1", ""])
def test_names_without_a_date(name: str) -> None:
    assert date_of(name) is None
