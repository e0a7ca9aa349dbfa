"""Down-sampling keeps what a reader looks for: extremes, ends, and a distribution that is nowhere off by much."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.views.cdf import cdf
from pdbench.views.thin import thin

VALUES = st.lists(st.floats(-1e9, 1e9) | st.just(math.inf) | st.just(math.nan), max_size=80)
TIMES = st.floats(-1e6, 1e6)


@settings(max_examples=80, deadline=None)
@given(VALUES, st.data(), st.integers(4, 40), st.booleans())
def test_extremes_and_ends_are_kept(y: list[float], data: st.DataObject, limit: int, sort: bool) -> None:
    x = data.draw(st.lists(TIMES, min_size=len(y), max_size=len(y)))
    x = sorted(x) if sort else x
    kept = thin(x, y, limit)
    assert len(kept) <= limit
    assert (np.diff(kept) > 0).all()
    if y:
        assert {0, len(y) - 1} <= set(kept.tolist())
    known = np.array([value for value in y if not math.isnan(value)])
    shown = np.array(y)[kept]
    if len(known):
        assert known.max() in shown
        assert known.min() in shown


def test_every_bucket_keeps_its_own_extremes() -> None:
    x = np.arange(1000)
    y = np.sin(x / 5.0)
    y[137] = 99
    y[700] = -99
    kept = thin(x, y, 42)
    assert {0, 137, 700, 999} <= set(kept.tolist())
    for low in range(0, 1000, 50):  # 20 buckets
        inside = kept[(kept >= low) & (kept < low + 50)]
        assert y[low : low + 50].max() == y[inside].max()
        assert y[low : low + 50].min() == y[inside].min()


def test_small_inputs_come_back_whole() -> None:
    assert thin([], [], 4).tolist() == []
    assert thin([1, 1, 1], [math.nan, 2, 3], 4).tolist() == [0, 1, 2]
    assert thin([1] * 9, [math.nan] * 9, 4).tolist() == [0, 8]
    with pytest.raises(ValueError, match="limit of 3"):
        thin([1], [1], 3)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 50) | st.just(math.inf) | st.just(math.nan), max_size=120), st.integers(1, 30))
def test_a_thinned_distribution_is_nowhere_far_off(values: list[float], limit: int) -> None:
    found = cdf(values, limit)
    known = np.array([value for value in values if not math.isnan(value)])
    assert found.count == len(known)
    assert len(found) <= limit + 2
    if not len(known):
        assert math.isnan(found.share_infinite)
        return
    assert found.share_infinite == pytest.approx(np.isinf(known).mean())
    for value in known[np.isfinite(known)]:
        exact = float(np.mean(known <= value))
        assert 0 <= exact - found.at(float(value)) < 1 / limit
        if len(known) <= limit:
            assert found.at(float(value)) == exact


def test_failures_keep_the_curve_below_one() -> None:
    found = cdf([1.0, 2.0, 2.0, math.inf])
    assert found.x.tolist() == [1, 2]
    assert found.y.tolist() == [0.25, 0.75]
    assert found.share_infinite == 0.25
    assert found.at(0.5) == 0
    assert cdf([math.inf, math.inf]).share_infinite == 1
    assert len(cdf([math.inf])) == 0
    assert math.isnan(cdf([]).at(1))
    with pytest.raises(ValueError, match="below 1"):
        cdf([1.0], 0)
