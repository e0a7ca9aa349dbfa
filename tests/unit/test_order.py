"""The order of the arms cancels drift."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.order import order_of


def test_two_arms_alternate() -> None:
    assert [order_of(2, pair) for pair in range(4)] == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_three_arms_use_all_six_orders() -> None:
    assert len({tuple(order_of(3, pair)) for pair in range(6)}) == 6


@given(st.integers(1, 7), st.integers(0, 50))
def test_each_order_is_a_permutation(arms: int, pair: int) -> None:
    assert sorted(order_of(arms, pair)) == list(range(arms))


@given(st.integers(1, 7))
def test_every_arm_takes_every_place_equally_often(arms: int) -> None:
    rows = [order_of(arms, pair) for pair in range(2 * arms)]
    for place in range(arms):
        assert sorted(row[place] for row in rows) == sorted(list(range(arms)) * 2)


@pytest.mark.parametrize(("arms", "pair"), [(0, 0), (2, -1)])
def test_bad(arms: int, pair: int) -> None:
    with pytest.raises(ValueError, match="at least one arm"):
        order_of(arms, pair)
