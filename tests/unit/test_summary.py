"""Attainment with its interval, steadiness, and the limit at which the order turns over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pdbench.measure.slo import parse_objectives
from pdbench.run import RunResult
from pdbench.serverside import ServerSide
from pdbench.stats.proportions import estimate_share
from pdbench.summary import attainment_intervals, steadiness, turns
from tests.unit.measure.helpers import frames, request

OBJECTIVES = parse_objectives(["ttft p90 <= 100ms", "worst_gap p90 <= 50ms", "tbt p90 <= 50ms", "errors <= 1%"])


def run(*records: Any, arm: str = "a", pair: int = 0) -> RunResult:
    frames_of = frames(*records, arm=arm, pair=pair)
    return RunResult(arm, pair, len(records), "complete", "kernel", *frames_of, None, ServerSide(), False)


def late(count: int, missed: int, *, arm: str = "a", pair: int = 0, gap: float = 10) -> RunResult:
    """``missed`` of ``count`` requests have a TTFT of 150 ms, the others 50 ms."""
    return run(*[request(i, 150 if i < missed else 50, [gap]) for i in range(count)], arm=arm, pair=pair)


def test_the_unit_is_a_run() -> None:
    found = attainment_intervals([late(40, n, pair=n) for n in (2, 4, 9)], OBJECTIVES)["attainment_interval"]
    wanted = estimate_share([(38, 40), (36, 40), (31, 40)]).interval
    assert found["joint"] == found["ttft p90 <= 100ms"] == pytest.approx(list(wanted), abs=1e-6)
    assert set(found) == {"joint", *(o.text for o in OBJECTIVES)}


def test_all_met_is_no_less_certain_than_all_but_one() -> None:
    near = attainment_intervals([late(40, 1), late(40, 0, pair=1), late(40, 0, pair=2)], OBJECTIVES)
    full = attainment_intervals([late(40, 0, pair=n) for n in range(3)], OBJECTIVES)
    low, high = full["attainment_interval"]["joint"]
    assert high == 1.0
    assert near["attainment_interval"]["joint"][0] == low < 1.0
    none = attainment_intervals([late(40, 40, pair=n) for n in range(3)], OBJECTIVES)
    assert none["attainment_interval"]["joint"][0] == 0.0
    assert none["slo_certain"]["ttft p90 <= 100ms"] == "missed"


@pytest.mark.parametrize(("count", "known"), [(60, False), (200, True)])
def test_one_run_has_an_interval_only_from_batches(count: int, known: bool) -> None:
    found = attainment_intervals([late(count, 7)], OBJECTIVES)
    assert ("joint" in found.get("attainment_interval", {})) is known


def test_nothing_without_an_slo() -> None:
    assert attainment_intervals([late(40, 1), late(40, 2, pair=1)], []) == {}


def test_a_growing_queue_is_told_by_pair() -> None:
    steady = [request(i, 50, [10], scheduled=100 * i) for i in range(200)]
    growing = [request(i, 50 + 80 * i, [10], scheduled=100 * i) for i in range(200)]
    runs = [run(*steady), run(*reversed(growing), pair=1)]
    assert [text.split(":")[0] for text in steadiness(runs, "poisson")] == ["saturated in pair 2 of 2"]
    assert steadiness(runs, "trace") == []
    assert steadiness([run(*growing[:50])], "poisson") == [], "a short run is not judged"


def test_the_turn() -> None:
    quick = [late(40, 20, arm="quick", gap=45)]
    smooth = [late(40, 36, arm="smooth", gap=5)]
    (turn,) = turns([*quick, *smooth], ["quick", "smooth"], "quick", OBJECTIVES[:2])
    assert turn["leads"] == "quick"
    assert (turn["metric"], turn["would_lead"]) == ("worst_gap", "smooth")
    assert 44 < turn["to_ms"] < 45
    assert turn["joint"] == {"quick": 0.0, "smooth": 0.1}


def test_no_limit_turns_two_like_arms() -> None:
    both = [late(40, 5, arm=name) for name in ("a", "b")]
    (turn,) = turns(both, ["a", "b"], "a", OBJECTIVES[:2])
    assert (turn["leads"], turn["metric"]) == (None, None)
    assert turns(both, ["a", "b"], "a", []) == []


def test_order_of_arrival_not_of_end() -> None:
    """Batches of a single run are cut in order of arrival; the journal is in order of end."""
    records = [request(i, 150 if i < 100 else 50, [10], scheduled=10 * i) for i in range(400)]
    mixed = [records[i] for i in np.random.Generator(np.random.PCG64(0)).permutation(400)]
    assert attainment_intervals([run(*records)], OBJECTIVES) == attainment_intervals([run(*mixed)], OBJECTIVES)
