from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdbench.stats.sequential import Looks, Rule, decide, decide_auto, decide_family, replay

TTFT, SHARE = Rule.of("ttft_p90"), Rule.of("joint_attainment", floor=1 / 60)


def spread(mean: float, sd: float, pairs: int) -> list[float]:
    """Values with exactly this mean and standard deviation."""
    z = np.arange(pairs) - (pairs - 1) / 2
    return list(mean + sd * z / np.std(z, ddof=1))


def test_looks_say_how_many_pairs_to_run() -> None:
    looks = Looks()
    assert [looks.next_pairs(done) for done in (0, 5, 6, 9, 10, 15, 16)] == [6, 1, 4, 1, 6, 1, 0]
    assert [looks.alpha(done) for done in (5, 6, 10, 16)] == [None, 0.002, 0.003, 0.005]
    assert looks.within(100) == looks
    assert looks.within(12).pairs == (6, 10)
    with pytest.raises(ValueError, match="5 pairs do not reach the first look, which comes after 6"):
        looks.within(5)


@pytest.mark.parametrize(
    ("pairs", "alphas"), [((), ()), ((6,), (0.1, 0.1)), ((1,), (0.01,)), ((6, 6), (0.01, 0.01)), ((6,), (0.5,))]
)
def test_looks_refuse(pairs: tuple[int, ...], alphas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"look|error"):
        Looks(pairs, alphas)


def test_the_bounds_by_hand() -> None:
    # Six pairs, mean 0.10, SD 0.03: error 0.012247. t(0.998, 5) = 5.0301 and t(0.95, 5) = 2.0150.
    found = decide(spread(0.10, 0.03, 6), TTFT)
    assert found.lower == pytest.approx(0.10 - 5.0301 * 0.0122474, abs=1e-5)
    assert found.upper == pytest.approx(0.10 + 2.0150 * 0.0122474, abs=1e-5)
    assert (found.status, found.alpha, found.next_pairs) == ("FAIL", 0.002, 0)
    assert found.p_worse == pytest.approx(
        float(stats.ttest_1samp(spread(0.10, 0.03, 6), 0, alternative="greater").pvalue)
    )


@pytest.mark.parametrize(
    ("mean", "sd", "pairs", "status"),
    [
        (0.10, 0.03, 6, "FAIL"),
        (0.10, 0.08, 6, "go on"),
        (0.10, 0.08, 10, "FAIL"),
        (0.10, 0.30, 10, "go on"),
        (0.10, 0.30, 16, "INCONCLUSIVE"),
        (0.00, 0.08, 6, "PASS"),
        (0.00, 0.15, 6, "go on"),
        (0.02, 0.001, 6, "PASS"),  # certain, but too small to matter
        (0.031, 0.001, 6, "FAIL"),  # certain and large enough, though within the margin
        (-0.50, 0.10, 6, "PASS"),
        (0.50, 0.01, 5, "go on"),  # between looks nothing is tested
        (0.50, 0.01, 7, "go on"),
        (0.10, 0.00, 6, "FAIL"),
        (0.00, 0.00, 6, "PASS"),
    ],
)
def test_the_rule(mean: float, sd: float, pairs: int, status: str) -> None:
    found = decide(spread(mean, sd, pairs), TTFT)
    assert found.status == status
    assert (found.next_pairs > 0) == (status == "go on")


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([0.0] * 6, "PASS"),  # all 100 %: the floor of one request in n still gives a bound
        ([0.05] * 6, "FAIL"),
        ([0.009] * 6, "go on"),  # under a point, but the floor keeps it from being certain
        ([-0.05] * 6, "PASS"),
    ],
)
def test_attainment(values: list[float], status: str) -> None:
    assert decide(values, SHARE).status == status


@pytest.mark.parametrize(
    ("extreme", "pairs", "status"),
    [
        ([math.inf], 6, "FAIL"),
        ([-math.inf], 6, "PASS"),
        ([math.inf, -math.inf], 6, "go on"),
        ([math.inf, -math.inf], 16, "INCONCLUSIVE"),
        ([math.nan], 6, "INVALID"),
        ([math.nan], 3, "INVALID"),
        ([math.nan, math.inf], 6, "INVALID"),
    ],
)
def test_what_is_not_a_number(extreme: list[float], pairs: int, status: str) -> None:
    found = decide([*extreme, *[0.0] * (pairs - len(extreme))], TTFT)
    assert found.status == status
    json.dumps(found.document(), allow_nan=False)


def test_too_many_pairs_and_unknown_metrics() -> None:
    with pytest.raises(ValueError, match="17 pairs, but the last look comes after 16"):
        decide([0.0] * 17, TTFT)
    with pytest.raises(ValueError, match="has no margin"):
        Rule.of("ttft_p42")


def test_replay_stops_at_the_first_look_that_decides() -> None:
    clear = spread(0.3, 0.05, 6)
    assert replay([*clear, *[-1.0] * 10], TTFT).pairs == 6
    unclear = [0.0, 0.3, -0.3, 0.2, -0.2, 0.1]
    assert replay([*unclear, *[0.0] * 10], TTFT).pairs == 16
    assert replay(unclear, TTFT).next_pairs == 4
    assert replay(unclear[:4], TTFT).next_pairs == 2


def test_secondary_metrics_share_their_error() -> None:
    # p = 0.0015 alone is under 0.002; as one of two it is not.
    y = spread(float(stats.t.isf(0.0015, 5)) * 0.05 / math.sqrt(6), 0.05, 6)
    quiet = spread(0.0, 0.05, 6)
    rules = dict.fromkeys(("a", "b", "c"), TTFT)
    alone = decide_family({"a": quiet, "b": y}, rules, "a")
    shared = decide_family({"a": quiet, "b": y, "c": quiet}, rules, "a")
    primary = decide_family({"b": y, "a": quiet, "c": quiet}, rules, "b")
    assert (alone["b"].status, shared["b"].status, primary["b"].status) == ("FAIL", "go on", "FAIL")
    assert shared["b"].p_worse == pytest.approx(0.003)
    with pytest.raises(ValueError, match="primary"):
        decide_family({"a": y}, rules, "b")


@pytest.mark.parametrize(
    ("mean", "sd", "pairs", "status"),
    [
        (0.10, 0.03, 6, "worse"),
        (-0.10, 0.03, 6, "better"),
        (0.00, 0.05, 6, "equivalent"),
        (0.00, 0.30, 6, "go on"),
        (0.00, 0.80, 16, "not resolved"),
        (0.10, 0.01, 7, "go on"),
    ],
)
def test_auto(mean: float, sd: float, pairs: int, status: str) -> None:
    assert decide_auto(spread(mean, sd, pairs), TTFT).status == status


def test_auto_leaves_out_what_says_nothing_and_believes_infinities() -> None:
    assert decide_auto([*spread(0.2, 0.01, 5), math.nan], TTFT).status == "worse"
    assert decide_auto([math.nan] * 6, TTFT).status == "go on"
    assert decide_auto([math.inf, *[0.0] * 5], TTFT).status == "worse"
    assert decide_auto([-math.inf, *[0.0] * 5], TTFT).status == "better"
    assert decide_auto([math.inf, -math.inf, *[0.0] * 4], TTFT).status == "go on"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_auto_is_antisymmetric(y: list[float]) -> None:
    one, other = decide_auto(y, TTFT), decide_auto([-v for v in y], TTFT)
    assert other.effect == -one.effect
    assert {"better": "worse", "worse": "better"}.get(one.status, one.status) == other.status
    if one.interval is not None and other.interval is not None:
        assert other.interval == (-one.interval[1], -one.interval[0])
        excludes = one.interval[0] > 0 or one.interval[1] < 0
        assert excludes == (one.status in ("better", "worse"))


def test_looking_after_every_pair_cries_wolf_and_planned_looks_do_not() -> None:
    draws = np.random.Generator(np.random.PCG64(5)).normal(0, 0.15, size=(1500, 16))
    ours = np.mean([replay(y, TTFT).status == "FAIL" for y in draws])
    k = np.arange(3, 17)
    sums, squares = np.cumsum(draws, axis=1)[:, 2:], np.cumsum(draws**2, axis=1)[:, 2:]
    t = sums / np.sqrt(k * (squares - sums**2 / k) / (k - 1))
    naive = np.mean((t > stats.t.ppf(0.95, k - 1)).any(axis=1))
    assert ours <= 0.012
    assert naive > 0.12


def test_auto_is_wrong_about_equal_arms_in_two_of_a_hundred_comparisons_at_most() -> None:
    draws = np.random.Generator(np.random.PCG64(6)).normal(0, 0.15, size=(1500, 16))
    wrong = 0
    for y in draws:
        found = next(d for k in (6, 10, 16) if (d := decide_auto(y[:k], TTFT)).status != "go on")
        wrong += found.status in ("better", "worse")
    assert wrong / len(draws) <= 0.025
