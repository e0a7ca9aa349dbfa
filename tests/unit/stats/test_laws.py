"""The laws are those of scipy.stats, which tests may take the time to import."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdbench.stats.laws import beta_ppf, mann_kendall, norm_ppf, t_ppf, t_sf

LEVELS = (0.001, 0.025, 0.5, 0.9, 0.975, 0.999)


@pytest.mark.parametrize("level", LEVELS)
def test_quantiles_and_tails(level: float) -> None:
    assert norm_ppf(level) == pytest.approx(stats.norm.ppf(level), rel=1e-12, abs=1e-12)
    for freedom in (1, 2, 5, 15, 200):
        x = t_ppf(level, freedom)
        assert x == pytest.approx(stats.t.ppf(level, freedom), rel=1e-12, abs=1e-12)
        assert t_sf(x, freedom) == pytest.approx(1 - level, rel=1e-9)
    for a, b in ((0.5, 10), (3, 3), (59, 1.5)):
        assert beta_ppf(level, a, b) == pytest.approx(stats.beta.ppf(level, a, b), rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=6, max_size=45).filter(lambda v: len(set(v)) > 1))
def test_a_trend_is_kendalls(values: list[int]) -> None:
    """Ties and none, few values (exact) and many."""
    found = mann_kendall(values)
    places = np.arange(len(values))
    rising = stats.kendalltau(places, values, alternative="greater")
    both = stats.kendalltau(places, values)
    assert found.tau == pytest.approx(rising.statistic, abs=1e-12)
    if len(values) <= 33 or len(set(values)) < len(values):  # beyond, scipy is exact in the far tails
        assert found.p_rising == pytest.approx(rising.pvalue, rel=1e-6, abs=1e-12)
        assert found.p_two_sided == pytest.approx(both.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("values", [[], [1.0], [1, 1, 1], [0.5] * 40])
def test_no_order_is_no_trend(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two values that differ"):
        mann_kendall(values)


def test_only_rising_and_only_falling() -> None:
    up, down = mann_kendall(range(10)), mann_kendall(range(10, 0, -1))
    assert (up.tau, down.tau) == (1.0, -1.0)
    assert up.p_rising == pytest.approx(1 / 3628800)
    assert down.p_rising == pytest.approx(1.0)
