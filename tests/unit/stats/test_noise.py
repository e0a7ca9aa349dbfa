"""A/A noise, and shares over runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdbench.stats.gate import entries
from pdbench.stats.mutants import OBJECTIVES
from pdbench.stats.noise import detectable, pair_noise, probe_noise
from pdbench.stats.paired import compare_pairs
from pdbench.stats.runlevel import judge_share
from tests.unit.gatehelp import honest


def test_detectable_is_what_compare_prints() -> None:
    y = np.array([0.02, -0.05, 0.07, 0.01, -0.03, 0.04])
    found = compare_pairs(y, scale="log_ratio", margin=0.1)
    assert detectable(float(np.std(y, ddof=1)), 6, "log_ratio") == pytest.approx(found.mde)
    assert detectable(0.02, 6, "difference") == pytest.approx(
        (stats.t.ppf(0.99, 5) + stats.t.ppf(0.9, 5)) * 0.02 / math.sqrt(6)
    )
    assert detectable(0.06, 16, "log_ratio") < detectable(0.06, 6, "log_ratio")
    with pytest.raises(ValueError, match="2 pairs"):
        detectable(0.1, 1, "log_ratio")


def test_pair_noise_of_the_same_system() -> None:
    base, head = (entries(runs, OBJECTIVES) for runs in honest()["same"])
    found = pair_noise(base, head)
    assert {"joint_attainment", "ttft_p90", "tpot_p90"} <= set(found)
    for metric in found.values():
        assert metric["pair_sd"] > 0
        assert metric["mde"]["6"] > metric["mde"]["10"] > metric["mde"]["16"] > 0
    with pytest.raises(ValueError, match="pairs or more"):
        pair_noise(base[:3], head[:3])


def test_probe_noise_is_about_zero_not_about_its_mean() -> None:
    base, head = honest()["same"]
    one = [replace(run, probe={"gemm": 1.0}) for run in base]
    other = [replace(run, probe={"gemm": 1.1, "copy": 1.0}) for run in head]
    assert probe_noise(one, other) == {"gemm": pytest.approx(math.log(1.1))}
    assert probe_noise(base, head) == {}


@pytest.mark.parametrize(
    ("shares", "target", "outcome"),
    [
        ([1.0] * 6, 0.9, "met"),
        ([0.97, 0.95, 0.99, 0.96, 0.98, 0.97], 0.9, "met"),
        ([0.8, 0.82, 0.79, 0.81, 0.8, 0.83], 0.9, "missed"),
        ([0.7, 1.0, 0.9, 0.95, 0.85, 1.0], 0.9, "not certain"),
        ([1.0], 0.9, "not certain"),
        ([0.0] * 6, 0.9, "missed"),
    ],
)
def test_shares_over_runs(shares: list[float], target: float, outcome: str) -> None:
    found = judge_share(shares, target=target, offered=60)
    assert found.outcome == outcome
    assert found.document()["runs"] == len(shares)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(1, 500))
def test_bounds_hold_the_share(shares: list[float], offered: int) -> None:
    found = judge_share(shares, target=0.5, offered=offered)
    assert found.bounds is not None
    assert 0 <= found.bounds[0] <= found.share + 1e-12
    assert found.share - 1e-12 <= found.bounds[1] <= 1


@pytest.mark.parametrize("bad", [[], [1.2], [-0.1], [float("nan")]])
def test_bad_shares(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="shares in"):
        judge_share(bad, target=0.9, offered=10)
