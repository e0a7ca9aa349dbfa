from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdbench.stats.proportions import (
    batch_shares,
    certify,
    clopper_pearson,
    design_effect,
    estimate_share,
    wilson,
)


# Newcombe, Statistics in Medicine 17 (1998), 857-872, table I: methods 3 (score) and 5 (exact).
@pytest.mark.parametrize(
    ("met", "n", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_published_table(met: int, n: int, score: tuple[float, float], exact: tuple[float, float]) -> None:
    assert wilson(met / n, n) == pytest.approx(score, abs=6e-5)
    assert clopper_pearson(met / n, n) == pytest.approx(exact, abs=6e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95]))
def test_against_scipy(case: tuple[int, int], level: float) -> None:
    met, n = case
    test = stats.binomtest(met, n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(level, method)
        assert ours(met / n, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.floats(0, 1), st.floats(0.5, 1000))
def test_effective_sizes_need_not_be_whole(share: float, n_eff: float) -> None:
    for interval in (wilson(share, n_eff), clopper_pearson(share, n_eff)):
        assert 0 <= interval[0] <= share <= interval[1] <= 1


def test_design_effect_of_independent_and_of_bunched_requests() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    independent = rng.random((200, 100)) < 0.9
    bunched = np.repeat(rng.random((200, 5)) < 0.9, 20, axis=1)
    assert design_effect(independent.mean(axis=1), 100) == pytest.approx(1.0, abs=0.25)
    assert design_effect(bunched.mean(axis=1), 100) == pytest.approx(20, rel=0.25)


@pytest.mark.parametrize("shares", [[], [0.9], [1.0, 1.0, 1.0], [0.0, 0.0]])
def test_no_spread_no_design_effect(shares: list[float]) -> None:
    assert design_effect(shares, 60) is None


def test_batches() -> None:
    good = [1.0] * 3 + [0.0] * 20 + [1.0] * 20
    assert list(batch_shares(good, 20)) == [0.0] * 10 + [1.0] * 10
    with pytest.raises(ValueError, match="20 batches"):
        batch_shares(good, 19)
    with pytest.raises(ValueError, match="20 batches"):
        batch_shares(good[:10])


def test_runs_that_differ_widen_the_interval() -> None:
    alike = estimate_share([(54, 60), (54, 60), (53, 60), (55, 60)])
    apart = estimate_share([(60, 60), (60, 60), (36, 60), (60, 60)])
    assert alike.share == apart.share == 0.9
    assert (alike.deff, alike.n) == (1.0, 240)
    assert apart.deff is not None
    assert apart.deff > 20
    assert apart.interval[0] < alike.interval[0] < 0.9 < alike.interval[1] < apart.interval[1]


def test_nothing_late_is_worth_no_more_than_its_units() -> None:
    found = estimate_share([(60, 60)] * 4)
    assert (found.deff, found.n_eff, found.interval[1]) == (None, 4, 1.0)
    assert found.interval == wilson(1.0, 4)
    assert estimate_share([(60, 60)] * 4, exact=True).interval == clopper_pearson(1.0, 4)


@pytest.mark.parametrize("units", [[], [(1, 0)], [(3, 2)], [(-1, 2)]])
def test_impossible_units(units: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="every unit"):
        estimate_share(units)


@pytest.mark.parametrize(
    ("units", "outcome"),
    [
        ([(598, 600), (597, 600), (600, 600), (599, 600), (598, 600)], "met"),
        ([(300, 600), (310, 600), (290, 600), (305, 600)], "missed"),
        ([(58, 60), (60, 60), (51, 60)], "cannot certify"),
        ([(60, 60)] * 6, "cannot certify"),  # all in time, but six units prove no 90 %
        ([(60, 60)] * 30, "met"),  # 0.05 ** (1 / 30) = 0.905
        ([(60, 60)], "cannot certify"),
    ],
)
def test_certify(units: list[tuple[float, int]], outcome: str) -> None:
    found = certify(estimate_share(units), 0.9)
    assert found.outcome == outcome
    assert found.reason
    with pytest.raises(ValueError, match="target"):
        certify(estimate_share(units), 1.0)
