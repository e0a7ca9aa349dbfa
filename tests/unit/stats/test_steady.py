from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from pdbench.stats.simulated import NO_SLOWDOWN, QUIET, draw_luck, make_plans, simulate
from pdbench.stats.steady import in_system, mser5, queue_trend, steady_warnings

Floats = npt.NDArray[np.float64]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def mser5_by_definition(values: Floats) -> int:
    batches = values[: len(values) // 5 * 5].reshape(-1, 5).mean(axis=1)
    n = len(batches)
    rows = [np.sum((batches[d:] - batches[d:].mean()) ** 2) / (n - d) ** 2 for d in range(n - 5)]
    return 5 * int(np.argmin(rows))


@pytest.mark.parametrize("seed", range(8))
def test_mser5_is_its_definition(seed: int) -> None:
    rng = generator(seed)
    values = rng.exponential(size=233) + 8 * np.exp(-np.arange(233) / 12)
    found, expected = mser5(values), mser5_by_definition(values)
    assert found.found == (expected <= 233 // 5 // 2 * 5)
    assert not found.found or found.drop == expected


def test_mser5_cuts_a_transient_and_finds_none_in_a_ramp() -> None:
    settled = np.concatenate([np.full(50, 9.0), generator(1).normal(1, 0.1, 250)])
    assert mser5(settled).drop == 50
    assert not mser5(np.arange(300.0)).found
    with pytest.raises(ValueError, match="50 finite"):
        mser5(np.ones(49))


def test_in_system_by_hand() -> None:
    assert list(in_system([0, 10, 20], [15, 30, np.nan], [0, 12, 15, 25, 99])) == [1, 2, 1, 2, 1]


def test_trend_is_kendalls_tau() -> None:
    starts = np.arange(200.0)
    found = queue_trend(starts, np.full(200, np.nan))  # nothing ever ends
    assert found.tau == pytest.approx(1.0)
    assert found.p_rising == pytest.approx(1 / 3628800)  # 1 / 10!
    assert found.late > found.early
    assert queue_trend(starts, starts + 0.9).p_rising > 0.1
    reference = stats.kendalltau(np.arange(10), np.arange(10), alternative="greater")
    assert found.p_rising == pytest.approx(reference.pvalue, rel=1e-12)
    with pytest.raises(ValueError, match="6 batches"):
        queue_trend(starts, starts, batches=5)


def kinds(utilisation: float, runs: int, n: int = 400) -> list[str]:
    rng = generator(11)
    plans = make_plans((runs,), n, 50, utilisation, rng)
    ttft = simulate(plans, draw_luck(plans, np.ones(runs), QUIET, rng), NO_SLOWDOWN).ttft_s
    found: list[str] = []
    for at, took in zip(plans.arrival_s[:, 50:], ttft[:, 50:], strict=True):
        warnings = steady_warnings(1e9 * at, 1e9 * (at + took), 1e9 * took, "poisson")
        found.append(warnings[0].kind if warnings else "steady")
    return found


def test_steady_queues_are_left_in_peace_and_saturated_ones_named() -> None:
    assert kinds(0.7, 60).count("steady") >= 56
    assert kinds(1.3, 30).count("saturated") >= 28


def test_a_transient_is_named() -> None:
    took = np.concatenate([np.linspace(9, 1, 100), generator(2).normal(1, 0.05, 200)])
    at = np.arange(300.0) * 100
    (warning,) = steady_warnings(at, at + took, took, "constant")
    assert warning.kind == "not steady"
    assert "requests differ from the rest" in warning.message
    assert warning.remedy


@pytest.mark.parametrize(("process", "n"), [("trace", 300), ("ramp", 300), ("at", 300), ("poisson", 99)])
def test_not_judged(process: str, n: int) -> None:
    at = np.arange(float(n))
    assert steady_warnings(at, at + 10 * at, 10 * at, process) == ()


def test_failed_requests_do_not_break_the_tests() -> None:
    at = np.arange(300.0)
    assert steady_warnings(at, np.full(300, np.nan), np.full(300, np.inf), "poisson")[0].kind == "saturated"
