"""The gate's promises, measured on thousands of simulated comparisons (about half a minute)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdbench.stats.coverage import measure_coverage
from pdbench.stats.gate_validation import LADDER, WARMUP, tallies, validate
from pdbench.stats.paired import Floats
from pdbench.stats.simulated import EDGE, Runs, Slowdown, p90

HEADLINE = "utilisation 0.7, pair SD up to 0.09"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return validate(seed=0, comparisons=2000, rung=500)


pytestmark = pytest.mark.timeout(600)


def test_gate_validation_false_alarms(found: dict[str, Any]) -> None:
    assert found["comparisons"] == 12_000
    assert all(row["comparisons"] == 2000 for row in found["false_alarms"].values())
    assert found["false_alarm_rate"] <= 0.012


def test_gate_validation_detection(found: dict[str, Any]) -> None:
    ladder = [found["detection"][f"{size:.2f}"] for size in LADDER]
    assert ladder == sorted(ladder)
    assert found["detection"]["1.05"] >= 0.95
    rows = found["detection_by_condition"]
    assert all(
        [r["fail_rate"] for r in row.values()] == sorted(r["fail_rate"] for r in row.values()) for row in rows.values()
    )
    # The claim is about a pair SD of 0.09 at most: it must have been tried near there, not far below.
    assert 0.08 <= found["false_alarms"][f"ttft_p90, {HEADLINE}"]["pair_sd"] <= 0.09
    assert 0.11 <= found["false_alarms"]["ttft_p90, utilisation 0.7, noisy machine"]["pair_sd"] <= 0.18
    # A queue turns 5 % of service into 18 % of P90 TTFT at 0.7 and into 11 % at 0.5.
    assert rows[HEADLINE]["1.05"]["effect"] == pytest.approx(0.166, abs=0.02)
    assert rows["utilisation 0.5"]["1.05"]["effect"] == pytest.approx(0.104, abs=0.02)


def test_gate_validation_injections(found: dict[str, Any]) -> None:
    injected = {name: row["fail_rate"] for name, row in found["injected"].items()}
    assert injected["decode x1.05, tpot_p90"] >= 0.9
    assert injected["transfer x2, worst_gap_p90"] == injected["stall 2%@50ms, worst_gap_p90"] == 1.0


def test_gate_validation_mutants(found: dict[str, Any]) -> None:
    assert found["mutants"] >= 10
    assert found["mutants_caught"] == found["mutants"]
    json.dumps(found, allow_nan=False)


def test_gate_validation_repeats_itself() -> None:
    def pick(runs: Runs) -> dict[str, Floats]:
        return {"ttft_p90": p90(runs.ttft_s, WARMUP)}

    one, other, third = (tallies([seed], 4, [Slowdown(prefill=1.02)], EDGE, 0.7, pick) for seed in (3, 3, 4))
    assert one == other != third
    with pytest.raises(ValueError, match="at least one comparison"):
        validate(comparisons=0)


def test_gate_validation_coverage() -> None:
    found = measure_coverage(seed=0, repetitions=1000)
    assert 0.93 <= found["p90_ratio"]["coverage"] <= 0.97
    assert 0.93 <= found["attainment"]["coverage"] <= 0.97
    assert found["design_effect"] > 10
