from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pdbench.measure.audit import Audit, Spread
from pdbench.stats.gate import RunEvidence, faults, gate_verdict, probe_faults, stamp_faults
from pdbench.stats.mutants import MUTANTS, OBJECTIVES, Arms, Mutant, run_mutants, scenarios, verdict
from pdbench.units import NS_PER_MS


@pytest.fixture(scope="module")
def honest() -> dict[str, Arms]:
    return scenarios(0)


@pytest.mark.parametrize(("name", "status"), [("same", "PASS"), ("slow", "FAIL"), ("failing", "FAIL")])
def test_honest_comparisons(honest: dict[str, Arms], name: str, status: str) -> None:
    found = gate_verdict(*honest[name], OBJECTIVES, primary="ttft_p90")
    assert (found.status, found.reasons, found.next_pairs) == (status, (), 0)
    assert found.decisions["ttft_p90"].status == status
    assert {"joint_attainment", "tpot_p90", "worst_gap_p90"} < set(found.decisions)
    json.dumps(found.document(), allow_nan=False)
    assert verdict(honest[name], Mutant("none", name)).status == status


def test_the_primary_metric_alone_decides(honest: dict[str, Arms]) -> None:
    found = gate_verdict(*honest["slow"], OBJECTIVES, primary="tpot_p90")
    slower = found.decisions["ttft_p90"]
    # Holm's share of the error is too little for six pairs; the comparison ended, so this stays open.
    assert (found.status, slower.status, slower.next_pairs) == ("PASS", "INCONCLUSIVE", 0)
    assert slower.effect > 0.2
    assert slower.p_worse < 0.05


def test_too_few_pairs_go_on(honest: dict[str, Arms]) -> None:
    base, head = honest["slow"]
    found = gate_verdict(base[:4], head[:4], OBJECTIVES, primary="ttft_p90")
    assert (found.status, found.next_pairs) == ("go on", 2)


def test_pairs_must_match(honest: dict[str, Arms]) -> None:
    base, head = honest["same"]
    # The same number of runs, but not of the same pairs.
    found = gate_verdict(base[:5], head[1:], OBJECTIVES, primary="ttft_p90")
    assert found.status == "INVALID"
    assert "did not run the same pairs" in found.reasons[0].message


def test_gate_mutants_are_caught(honest: dict[str, Arms]) -> None:
    found = run_mutants(0)
    assert [m.name for m in found if not m.caught] == []
    by_name = {m.name: m.mutated for m in found}
    # What the evidence can show must be refused; faults behind it can only turn the verdict.
    turned = {name for name, status in by_name.items() if status != "INVALID"}
    assert turned == {
        "arms swapped",
        "sign flipped",
        "ms and s mixed in a summary",
        "failed requests dropped from plan and run",
    }
    assert len(MUTANTS) == len(by_name)


def test_a_harmless_mutant_is_not_caught() -> None:
    (found,) = run_mutants(0, [Mutant("none", "same")])
    assert not found.caught


def shifted(run: RunEvidence, lags: list[int]) -> RunEvidence:
    """The run with these least lags between stamp and read, request by request."""
    column = run.requests["user_lag_ns"].copy()
    for i in range(len(column)):
        column.iloc[i] = [lags[i % len(lags)]]
    return replace(run, requests=run.requests.assign(user_lag_ns=column))


def test_stamps(honest: dict[str, Arms]) -> None:
    run = honest["same"][0][0]
    assert stamp_faults(run, OBJECTIVES) == []
    assert "later than they were read" in stamp_faults(shifted(run, [-NS_PER_MS]), OBJECTIVES)[0].message
    n = len(run.requests)
    jumped = shifted(run, [50_000] * (n // 2) + [5_000_000] * (n - n // 2))
    assert "moved by 4.95 ms" in stamp_faults(jumped, OBJECTIVES)[0].message
    assert stamp_faults(replace(jumped, clock="user"), OBJECTIVES) == []


LATE = Spread(p50=50.0, p99=90.0, max=99.0)


@pytest.mark.parametrize(
    ("audit", "says"),
    [
        (Audit(), None),
        (Audit(loop_lag_ms=LATE), "event loop lag"),
        (Audit(loop_lag_ms=Spread(p50=1.0, p99=1.5, max=2.0), cpu_wait_share=0.9), "wait for the processor"),
        (Audit(clock_drift_us=9e5), "the clock moved"),
    ],
)
def test_what_the_client_says_of_itself(honest: dict[str, Arms], audit: Audit, says: str | None) -> None:
    base, head = honest["same"]
    found = gate_verdict(base, [*head[:5], replace(head[5], audit=audit)], OBJECTIVES, primary="ttft_p90")
    assert (found.status == "INVALID") == (says is not None)
    assert says is None or says in found.reasons[0].message


@pytest.mark.parametrize(("limit", "faulty"), [(None, True), (4, False)])
def test_to_wait_for_a_slot_is_no_fault(honest: dict[str, Arms], limit: int | None, faulty: bool) -> None:
    base, head = (runs[0] for runs in honest["same"])
    due = head.requests["scheduled_ns"] - 1000 * NS_PER_MS
    head = replace(head, requests=head.requests.assign(scheduled_ns=due), max_concurrency=limit)
    assert bool(faults([base], [head], OBJECTIVES, {})) == faulty


@pytest.mark.parametrize(
    ("probe", "sd", "caught"), [(1.02, 0.0, False), (1.05, 0.0, True), (0.95, 0.0, True), (1.05, 0.02, False)]
)
def test_probe(honest: dict[str, Arms], probe: float, sd: float, caught: bool) -> None:
    base, head = (runs[0] for runs in honest["same"])
    found = probe_faults(replace(base, probe={"gemm": 1.0}), replace(head, probe={"gemm": probe}), {"gemm": sd})
    assert bool(found) == caught
    assert probe_faults(base, replace(head, probe={"gemm": probe}), {}) == []
