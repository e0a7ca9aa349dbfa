from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdbench.stats.paired import (
    MARGINS,
    compare_pairs,
    comparisons,
    holm,
    pair_values,
    run_value,
    sign_flip_p,
    spread_floor,
)

VALUES = st.lists(st.floats(-2, 2), min_size=2, max_size=12)


def run(joint: float | None = 1.0, ttft: float | None = 100.0, n: int = 60, **more: float | None) -> dict[str, Any]:
    """A summary entry; keyword ``tbt=None`` is an infinite percentile."""
    entry: dict[str, Any] = {"requests": {"scheduled": n}, "attainment": {}, "ttft_ms": {"p90": ttft}}
    if joint is not None:
        entry["attainment"]["joint"] = joint
    return entry | {f"{name}_ms": {"p90": value} for name, value in more.items()}


def of(found: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    (item,) = [c for c in found if c["metric"] == metric]
    return item


def test_three_pairs_by_hand() -> None:
    # Mean 0.2, SD 0.1, three pairs: half-width t(0.975, 2) * 0.1 / sqrt(3) = 4.3027 * 0.057735 = 0.24842.
    found = compare_pairs([0.1, 0.2, 0.3], scale="log_ratio", margin=0.1)
    assert found.effect == pytest.approx(0.2)
    assert found.percent == pytest.approx(22.1403, abs=1e-4)
    assert found.interval == pytest.approx((-0.04842, 0.44842), abs=1e-5)
    # t(0.99, 2) = 6.9646, t(0.90, 2) = 1.8856: exp(8.8502 * 0.057735) - 1.
    assert found.mde == pytest.approx(math.exp(8.8502 * 0.0577350) - 1, rel=1e-4)
    assert found.verdict == "not resolved"
    assert found.pairs == 3


@settings(max_examples=60, deadline=None)
@given(VALUES.filter(lambda v: np.std(v) > 1e-6))
def test_against_scipy(values: list[float]) -> None:
    found = compare_pairs(values, scale="difference", margin=0.02)
    reference = stats.ttest_1samp(values, 0.0)
    assert found.p_two_sided == pytest.approx(float(reference.pvalue), rel=1e-6, abs=1e-12)
    interval = reference.confidence_interval(0.95)
    assert found.interval == pytest.approx((float(interval.low), float(interval.high)), rel=1e-6, abs=1e-9)
    lower = stats.ttest_1samp(values, -0.02, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 0.02, alternative="less").pvalue
    assert found.tost_p == pytest.approx(float(max(lower, upper)), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("y", "scale", "margin", "floor", "verdict"),
    [
        ([0.30, 0.31, 0.32], "log_ratio", 0.10, 0.0, "worse"),
        ([-0.30, -0.31, -0.32], "log_ratio", 0.10, 0.0, "better"),
        ([0.001, -0.001, 0.0], "log_ratio", 0.10, 0.0, "equivalent"),
        ([0.5, -0.5, 0.1], "log_ratio", 0.10, 0.0, "not resolved"),
        ([0.0, 0.0, 0.0], "difference", 0.02, 0.0, "equivalent"),
        # "All 100 %" on 20 requests a run shows less than a 2-point margin needs.
        ([0.0, 0.0, 0.0], "difference", 0.02, 1 / 20, "not resolved"),
        ([0.0] * 6, "difference", 0.02, 1 / 60, "equivalent"),
        # 4.9 % is inside the 5 % margin as a ratio, 5.1 % is not.
        ([math.log(1.049)] * 3, "log_ratio", 0.05, 0.0, "worse"),
        ([0.3], "log_ratio", 0.10, 0.0, "not resolved"),
    ],
)
def test_verdicts(y: list[float], scale: Any, margin: float, floor: float, verdict: str) -> None:
    assert compare_pairs(y, scale=scale, margin=margin, floor=floor).verdict == verdict


@pytest.mark.parametrize(("effect", "inside"), [(1.099, True), (1.101, False), (1 / 1.099, True), (1 / 1.101, False)])
def test_the_margin_is_a_ratio(effect: float, inside: bool) -> None:
    found = compare_pairs([math.log(effect)] * 4, scale="log_ratio", margin=0.10)
    assert (found.tost_p < 0.05) == inside


def test_one_pair_is_descriptive() -> None:
    found = compare_pairs([0.3], scale="log_ratio", margin=0.1)
    assert (found.interval, found.mde, found.p_two_sided, found.pairs) == (None, None, 1.0, 1)
    assert found.percent == pytest.approx(34.98588)


def test_the_floor_widens_and_never_narrows() -> None:
    narrow = compare_pairs([0.1, 0.1, 0.1], scale="difference", margin=0.02)
    floored = compare_pairs([0.1, 0.1, 0.1], scale="difference", margin=0.02, floor=0.05)
    wide = compare_pairs([0.0, 0.1, 0.2], scale="difference", margin=0.02)
    assert narrow.interval == pytest.approx((0.1, 0.1))
    assert floored.interval is not None
    assert floored.interval[1] - floored.interval[0] == pytest.approx(2 * 4.30265 * 0.05 / 3**0.5, rel=1e-5)
    assert compare_pairs([0.0, 0.1, 0.2], scale="difference", margin=0.02, floor=0.01) == wide


@pytest.mark.parametrize(
    ("y", "verdict"),
    [
        ([math.inf, 0.1, 0.1], "worse"),
        ([-math.inf, 0.1, 0.1], "better"),
        ([math.inf], "worse"),
        ([math.inf, -math.inf], "not resolved"),
    ],
)
def test_infinite_in_one_arm_is_a_verdict_without_an_interval(y: list[float], verdict: str) -> None:
    found = compare_pairs(y, scale="log_ratio", margin=0.1)
    assert (found.verdict, found.interval, found.mde) == (verdict, None, None)


def test_pairs_without_information_are_left_out() -> None:
    found = compare_pairs([0.1, math.nan, 0.2], scale="log_ratio", margin=0.1)
    assert found.pairs == 2
    with pytest.raises(ValueError, match="at least one pair"):
        compare_pairs([math.nan], scale="log_ratio", margin=0.1)


@pytest.mark.parametrize("bad", [{"margin": 0.0}, {"level": 1.0}, {"level": 0.4}, {"floor": -1.0}])
def test_bad_arguments(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs"):
        compare_pairs([0.1, 0.2], **{"scale": "difference", "margin": 0.1, **bad})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from(["log_ratio", "difference"]), st.sampled_from([0.0, 0.02]))
def test_swapping_the_arms_negates_everything_exactly(values: list[float], scale: Any, floor: float) -> None:
    one = compare_pairs(values, scale=scale, margin=0.05, floor=floor)
    two = compare_pairs([-v for v in values], scale=scale, margin=0.05, floor=floor)
    assert two.effect == -one.effect
    assert one.interval is not None
    assert two.interval == (-one.interval[1], -one.interval[0])
    assert (two.p_two_sided, two.tost_p, two.mde) == (one.p_two_sided, one.tost_p, one.mde)
    mirror = {"better": "worse", "worse": "better"}
    assert two.verdict == mirror.get(one.verdict, one.verdict)


@pytest.mark.parametrize(
    ("pvalues", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5], [0.5]),
        ([], []),
        ([0.9, 0.9], [1.0, 1.0]),
        ([0.02, 0.02, 0.0], [0.04, 0.04, 0.0]),
    ],
)
def test_holm(pvalues: list[float], adjusted: list[float]) -> None:
    assert holm(pvalues) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_none_and_bonferroni(pvalues: list[float]) -> None:
    for p, q in zip(pvalues, holm(pvalues), strict=True):
        assert p - 1e-12 <= q <= min(1.0, len(pvalues) * p) + 1e-12


def test_sign_flips() -> None:
    # All eight on one side: only the observed way and its mirror are as far out.
    assert sign_flip_p([1, 2, 3, 4, 5, 6, 7, 8]) == 2 / 2**8
    assert sign_flip_p([1, -1]) == 1.0
    assert sign_flip_p([0.0] * 8) == 1.0
    assert sign_flip_p([1.0] * 40) == pytest.approx(1 / 2**16)
    y = np.random.default_rng(3).normal(0.4, 1, 10)
    ours = sign_flip_p(y)
    reference = stats.permutation_test((y,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert ours == pytest.approx(float(reference.pvalue))


@pytest.mark.parametrize(("pairs", "present"), [(7, False), (8, True)])
def test_sign_flip_from_eight_pairs_on(pairs: int, present: bool) -> None:
    found = compare_pairs(np.linspace(0.1, 0.2, pairs), scale="difference", margin=0.02)
    assert (found.p_sign_flip is not None) == present


def test_values_of_a_run() -> None:
    entry = run(0.9, None, tbt=12.0)
    assert run_value(entry, "joint_attainment") == 0.9
    assert run_value(entry, "ttft_p90") == math.inf
    assert run_value(entry, "tbt_p90") == 12.0
    assert math.isnan(run_value(entry, "worst_gap_p90"))


def test_positive_means_that_the_head_is_worse() -> None:
    base, head = [run(0.9, 100)], [run(0.8, 200)]
    assert pair_values(base, head, "joint_attainment") == pytest.approx([0.1])
    assert pair_values(base, head, "ttft_p90") == pytest.approx([math.log(2)])
    assert pair_values(base, [run(ttft=None)], "ttft_p90") == [math.inf]
    assert pair_values([run(ttft=None)], head, "ttft_p90") == [-math.inf]
    assert np.isnan(pair_values([run(ttft=None)], [run(ttft=None)], "ttft_p90")).all()
    assert pair_values([run(ttft=0)], [run(ttft=0)], "ttft_p90") == [0.0]


def test_unequal_numbers_of_runs() -> None:
    with pytest.raises(ValueError, match="1 runs of the base, 2 of the head"):
        pair_values([run()], [run(), run()], "ttft_p90")


def test_the_floor_of_attainment_is_one_request() -> None:
    assert spread_floor([run(n=60)], [run(n=40)], "joint_attainment") == 1 / 40
    assert spread_floor([run(n=60)], [run(n=40)], "ttft_p90") == 0.0


RUNS = {
    "base": [run(0.80, 100, tbt=50.0), run(0.82, 110, tbt=51.0), run(0.81, 90, tbt=49.0)],
    "head": [run(0.95, 101, tbt=100.0), run(0.96, 108, tbt=103.0), run(0.95, 92, tbt=97.0)],
}


def test_comparisons() -> None:
    found = comparisons(RUNS, "base", ["base", "head"])
    assert [c["metric"] for c in found] == ["joint_attainment", "ttft_p90", "tbt_p90"]
    assert [c["primary"] for c in found] == [True, False, False]
    joint, ttft, tbt = found
    assert (joint["verdict"], joint["scale"], joint["margin"]) == ("better", "difference", 0.02)
    assert joint["effect"] == pytest.approx((0.80 - 0.95 + 0.82 - 0.96 + 0.81 - 0.95) / 3)
    assert joint["percent"] == pytest.approx(100 * joint["effect"])
    assert (ttft["verdict"], ttft["scale"], ttft["margin"]) == ("equivalent", "log_ratio", 0.10)
    assert (tbt["verdict"], tbt["margin"], tbt["pairs"]) == ("worse", 0.05, 3)
    assert tbt["percent"] == pytest.approx(100.0, abs=2)


def test_swapping_base_and_head_negates_every_effect_exactly() -> None:
    one = comparisons(RUNS, "base", ["base", "head"])
    two = comparisons(RUNS, "head", ["base", "head"])
    for a, b in zip(one, two, strict=True):
        assert b["effect"] == -a["effect"]
        assert b["interval"] == [-a["interval"][1], -a["interval"][0]]
        assert {a["verdict"], b["verdict"]} in ({"better", "worse"}, {a["verdict"]})


def test_every_metric_has_a_margin_and_is_found() -> None:
    full = [run(0.9, 10, tpot=1.0, tbt=1.0, worst_gap=1.0, e2e=1.0) for _ in range(2)]
    found = comparisons({"a": full, "b": full}, "a", ["a", "b"])
    assert {c["metric"] for c in found} == set(MARGINS)


def test_holm_runs_over_metrics_and_arms() -> None:
    # Alone, TTFT is resolved (p = 0.037); beside a second secondary metric of another arm it is not.
    base = [run(ttft=100), run(ttft=100), run(ttft=100)]
    head = [run(ttft=110), run(ttft=120), run(ttft=114)]
    same = [run(ttft=99), run(ttft=103), run(ttft=100)]
    alone = of(comparisons({"base": base, "head": head}, "base", ["base", "head"]), "ttft_p90")
    assert 0.025 < alone["p_value"] < 0.05
    assert alone["verdict"] == "worse"
    three = comparisons({"base": base, "head": head, "same": same}, "base", ["base", "head", "same"])
    corrected = next(c for c in three if c["head"] == "head" and c["metric"] == "ttft_p90")
    assert corrected["p_value"] == pytest.approx(2 * alone["p_value"])
    assert corrected["verdict"] == "not resolved"


def test_infinite_figures_are_null() -> None:
    dead = [run(0.0, None), run(0.0, None)]
    found = comparisons({"a": [run(), run()], "b": dead}, "a", ["a", "b"])
    ttft = of(found, "ttft_p90")
    assert (ttft["effect"], ttft["percent"], ttft["interval"], ttft["verdict"]) == (None, None, None, "worse")
    back = of(comparisons({"a": [run(), run()], "b": dead}, "b", ["a", "b"]), "ttft_p90")
    assert (back["effect"], back["verdict"]) == (None, "better")


def test_a_single_pair_is_never_resolved_by_finite_numbers() -> None:
    found = comparisons({"a": [run(1.0, 1)], "b": [run(0.1, 900)]}, "a", ["a", "b"])
    assert {c["verdict"] for c in found} == {"not resolved"}
    assert {c["interval"] for c in found} == {None}


def test_another_primary_metric() -> None:
    found = comparisons(RUNS, "base", ["base", "head"], primary="tbt_p90")
    assert [c["metric"] for c in found if c["primary"]] == ["tbt_p90"]
    assert found[0]["primary"]
    with pytest.raises(ValueError, match="unknown primary"):
        comparisons(RUNS, "base", ["base", "head"], primary="speed")
