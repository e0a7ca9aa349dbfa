"""The surface against counting by hand and by brute force; the flip is the nearest there is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.measure.latency import request_metrics
from pdbench.measure.slo import parse_objectives
from pdbench.measure.surface import (
    AXES,
    Outcomes,
    cube,
    default_grid,
    flips,
    joint,
    leader,
    outcomes_of,
    slo_limits,
)
from tests.unit.measure.helpers import frames, request

MS = 1e6


def arm(*rows: tuple[float, float, float], failed: int = 0) -> Outcomes:
    """``(ttft, tpot, worst gap)`` in ms a request; ``failed`` more that did not complete."""
    values = np.array([*rows, *[(math.inf,) * 3] * failed], dtype=float).reshape(-1, 3) * MS
    eligible = np.array([True] * len(rows) + [False] * failed, dtype=bool)
    return Outcomes({axis: values[:, i] for i, axis in enumerate(AXES)}, eligible)


def limits(ttft: float = math.inf, tpot: float = math.inf, worst_gap: float = math.inf) -> dict[str, float]:
    return {"ttft": ttft * MS, "tpot": tpot * MS, "worst_gap": worst_gap * MS}


def grid(**axes: list[float]) -> dict[str, Any]:
    return {axis: np.array(axes.get(axis, [math.inf])) * MS for axis in AXES}


def test_a_cube_by_hand() -> None:
    one = arm((100, 10, 20), (200, 30, 20), (300, 10, 90), (100, math.nan, math.nan), failed=1)
    found = cube(one, grid(ttft=[99, 100, 200], tpot=[10, 30], worst_gap=[20, 90]))
    assert found.shape == (3, 2, 2)
    assert found[:, 1, 1].tolist() == [0, 0.4, 0.6]  # the limit itself is kept; 300 ms is beyond the grid
    assert found[:, 0, 0].tolist() == [0, 0.4, 0.4]  # NaN keeps a limit that does not apply
    assert cube(one, grid()).item() == 0.8  # no limit saves a request that failed


def test_no_requests() -> None:
    assert np.isnan(cube(arm(), grid())).all()
    assert math.isnan(joint(arm(), limits()))


latency = st.one_of(st.integers(1, 12).map(float), st.just(math.nan))
rows = st.lists(st.tuples(st.integers(1, 12).map(float), latency, latency), min_size=1, max_size=12)
rising = st.lists(st.integers(1, 14).map(float), min_size=1, max_size=4, unique=True).map(sorted)


@given(rows, st.integers(0, 3), rising, rising, rising)
@settings(max_examples=60, deadline=None)
def test_the_cube_is_joint_attainment_everywhere(
    some: list[tuple[float, float, float]], failed: int, a: list[float], b: list[float], c: list[float]
) -> None:
    one = arm(*some, failed=failed)
    found = cube(one, grid(ttft=a, tpot=b, worst_gap=c))
    for i, ttft in enumerate(a):
        for j, tpot in enumerate(b):
            for k, gap in enumerate(c):
                good = sum(x <= ttft and not y > tpot and not z > gap for x, y, z in some)
                assert found[i, j, k] == good / (len(some) + failed)
                assert joint(one, limits(ttft, tpot, gap)) == found[i, j, k]


def test_other_objectives_stay_as_they_are() -> None:
    derived = request_metrics(*frames(request(0, 50, [10, 10]), request(1, 50, [10, 500])))
    objectives = parse_objectives(["ttft p90 <= 100ms", "e2e p90 <= 200ms", "tbt p99 <= 1ms", "errors <= 1%"])
    assert cube(outcomes_of(derived, objectives), grid()).item() == 0.5
    assert cube(outcomes_of(derived, objectives[:1]), grid()).item() == 1.0


def test_the_tightest_limit_of_an_axis_counts() -> None:
    found = slo_limits(parse_objectives(["ttft p50 <= 100ms", "ttft p99 <= 400ms", "tbt p99 <= 1ms"]))
    assert found == limits(ttft=100)


def test_the_default_grid_holds_the_slo_and_no_limit() -> None:
    found = default_grid([arm((100, 10, 20), (300, 30, 50))], limits(ttft=400))
    assert found["ttft"].tolist() == [x * MS for x in (100, 200, 300, 400, 600, 800, 1600)]
    for axis in ("tpot", "worst_gap"):
        assert found[axis][-1] == math.inf
        assert (np.diff(found[axis]) > 0).all()
    assert default_grid([arm(failed=2)], limits())["tpot"].tolist() == [math.inf]


@pytest.mark.parametrize(
    ("base", "head", "who"),
    [(0.9, 0.9, "tie"), (0.9, 0.92, "tie"), (0.9, 0.93, "head"), (0.93, 0.9, "base"), (0.92, 0.9, "tie")],
)
def test_leader(base: float, head: float, who: str) -> None:
    assert leader(base, head) == who


FAST_STALLS = arm(*[(100, 10, 80)] * 6, *[(100, 10, 10)] * 4)
SLOW_SMOOTH = arm(*[(300, 10, 20)] * 9, *[(500, 10, 20)])


def test_flips_by_hand() -> None:
    """At 400 ms and 100 ms the fast one leads 100 to 90; a gap limit below 80 ms takes six of its ten."""
    found = flips(FAST_STALLS, SLOW_SMOOTH, limits(400, 40, 100))
    assert [(f.axis, f.limit_ns, f.leads) for f in found] == [("worst_gap", 80 * MS - 1, "head")]
    assert (found[0].base, found[0].head) == (0.4, 0.9)
    assert found[0].ratio == pytest.approx(0.8)


def test_a_looser_limit_may_turn_it_too() -> None:
    found = flips(SLOW_SMOOTH, FAST_STALLS, limits(400, 40, 50))  # 90 to 40
    assert [(f.axis, f.limit_ns, f.leads) for f in found] == [
        ("ttft", 300 * MS - 1, "head"),
        ("worst_gap", 80 * MS, "head"),
        ("worst_gap", 20 * MS - 1, "head"),
    ]
    assert found[0].change < found[1].change < found[2].change


def test_from_a_tie_either_may_come_to_lead() -> None:
    found = flips(arm((100, 10, 50)), arm((200, 10, 20)), limits(400, 40, 100))
    assert [(f.axis, f.limit_ns, f.leads) for f in found] == [
        ("ttft", 200 * MS - 1, "base"),
        ("worst_gap", 50 * MS - 1, "head"),
    ]


def test_an_added_limit_comes_last() -> None:
    found = flips(FAST_STALLS, SLOW_SMOOTH, limits(ttft=400))
    assert [(f.axis, f.limit_ns, f.ratio, f.change) for f in found] == [("worst_gap", 80 * MS - 1, 0.0, math.inf)]


def test_twins_never_part() -> None:
    assert flips(FAST_STALLS, FAST_STALLS, limits(400, 40, 100)) == []


@given(rows, rows, st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_no_nearer_flip_is_missed(
    a: list[tuple[float, float, float]], b: list[tuple[float, float, float]], x: int, y: int, z: int
) -> None:
    """Every limit in steps of half a ms is tried: none that turns the order is nearer than the one found."""
    base, head, at = arm(*a), arm(*b), limits(x, y, z)
    now = leader(joint(base, at), joint(head, at))
    found = {(f.axis, f.limit_ns > at[f.axis]): f for f in flips(base, head, at)}
    for (axis, _), flip in found.items():
        moved = {**at, axis: flip.limit_ns}
        assert leader(joint(base, moved), joint(head, moved)) == flip.leads
        assert flip.leads not in ("tie", now)
    for axis in AXES:
        for tried in np.arange(0.5, 14, 0.5) * MS:
            moved = {**at, axis: float(tried)}
            who = leader(joint(base, moved), joint(head, moved))
            if who in ("tie", now):
                continue
            flip = found[(axis, bool(tried > at[axis]))]
            assert abs(flip.limit_ns - at[axis]) <= abs(tried - at[axis])
