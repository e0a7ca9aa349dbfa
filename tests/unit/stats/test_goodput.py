from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.stats.goodput import RateRun, falling_fit, fit_goodput, goodput_ratio
from pdbench.stats.rates import BRACKET, next_rates

Law = Callable[[float, int], float]


def law(crossing: float, spread: float = 0.0, seed: int = 0, n: int = 60) -> Law:
    """Attainment that is 90 % at ``crossing`` on average; seeds shift it, runs add binomial noise."""
    shifts = np.random.Generator(np.random.PCG64([seed, 0])).normal(0, 1, 100)

    def attainment(rate: float, plan: int) -> float:
        x = math.log(rate / crossing) - spread * shifts[plan]
        share = 1 / (1 + math.exp(6 * x - math.log(9)))
        if spread == 0:
            return share
        own = np.random.Generator(np.random.PCG64([seed, plan, round(1e6 * rate)]))
        return float(own.binomial(n, share)) / n

    return attainment


def runs_of(of: Law, rates: list[float], seeds: int) -> list[RateRun]:
    return [RateRun(rate, of(rate, seed), seed, 60) for seed in range(seeds) for rate in rates]


def search(of: Law, start: float, budget: int, target: float = 0.1) -> tuple[list[RateRun], str]:
    runs: list[RateRun] = []
    while True:
        step = next_rates(runs, start_rate=start, budget=budget, target=target)
        if not step.runs:
            return runs, step.reason
        assert len(runs) + len(step.runs) <= budget
        assert not {(r.rate, r.seed) for r in runs} & set(step.runs), "a run is asked for twice"
        runs += [RateRun(rate, of(rate, seed), seed, 60) for rate, seed in step.runs]


def test_falling_fit_pools_violators() -> None:
    # Textbook case: 0.8 and 1.0 violate the order; weights 1 and 3 pool them at 0.95.
    assert list(falling_fit([1.0, 0.8, 1.0, 0.2], [1, 1, 3, 1])) == pytest.approx([1.0, 0.95, 0.95, 0.2])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_fit_falls_and_keeps_the_mean(shares: list[float]) -> None:
    fit = falling_fit(shares, np.ones(len(shares)))
    assert np.all(np.diff(fit) <= 1e-12)
    assert fit.mean() == pytest.approx(np.mean(shares), abs=1e-9)


def test_crossing_by_hand() -> None:
    found = fit_goodput([RateRun(2.0, 1.0, 0), RateRun(3.0, 0.8, 0), RateRun(4.0, 0.1, 0)])
    assert found.where == "resolved"
    assert found.rate == pytest.approx(2.5)
    assert (found.low, found.high, found.half_width) == (None, None, None)
    assert found.text == "2.5 (interval not resolved)"
    assert fit_goodput([RateRun(2.0, 1.0, 0), RateRun(3.0, 0.8, 0)], share=0.95).rate == pytest.approx(2.25)


def test_rates_are_pooled_by_requests() -> None:
    runs = [RateRun(2.0, 1.0, 0, 100), RateRun(3.0, 1.0, 0, 300), RateRun(3.0000001, 0.2, 1, 100)]
    # At rate 3: (300 + 20) / 400 = 0.8.
    assert fit_goodput(runs).rate == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("shares", "where", "rate", "text"),
    [([1.0, 0.95], "above", 3.0, "above 3"), ([0.5, 0.2], "below", 2.0, "below 2")],
)
def test_unresolved_ends(shares: list[float], where: str, rate: float, text: str) -> None:
    runs = [RateRun(r, s, seed) for seed in range(4) for r, s in zip((2.0, 3.0), shares, strict=True)]
    found = fit_goodput(runs)
    assert (found.where, found.rate, found.text, found.half_width) == (where, rate, text, None)
    assert found.claimed is None
    json.dumps(found.document(), allow_nan=False)


def test_interval_narrows_with_seeds_and_lower_bound_is_certified() -> None:
    rates = [2.0, 2.4, 2.7, 3.0, 3.3, 3.7, 4.4, 5.5]
    few, many = (fit_goodput(runs_of(law(3.0, 0.05), rates, seeds)) for seeds in (4, 16))
    assert few.half_width is not None
    assert many.half_width is not None
    assert many.half_width < few.half_width
    assert many.low is not None
    assert many.lower_bound is not None
    assert many.low < many.lower_bound < many.rate
    sure = fit_goodput(runs_of(law(3.0, 0.05), rates, 16), certify=True)
    assert sure.claimed == many.lower_bound
    assert many.claimed == many.rate
    assert fit_goodput(runs_of(law(3.0, 0.05), rates, 16)) == many


def test_seeds_that_agree_are_believed_to_one_request_in_a_run() -> None:
    """By hand: crossing 2.5, slope 0.2 a req/s, one request of 50 moves it by 0.1; t(2) = 4.303 over sqrt(3)."""
    runs = [RateRun(rate, share, seed, 50) for seed in range(3) for rate, share in ((2.0, 1.0), (3.0, 0.8))]
    found = fit_goodput(runs)
    assert found.rate == pytest.approx(2.5)
    assert found.high is not None
    assert found.high == pytest.approx(2.5 * math.exp(4.3027 * 0.1 / 2.5 / math.sqrt(3)), rel=1e-4)
    finer = fit_goodput([RateRun(run.rate, run.attainment, run.seed, 500) for run in runs])
    assert found.half_width is not None
    assert finer.half_width == pytest.approx(found.half_width / 10, rel=0.01)
    assert (ratio := goodput_ratio(runs, runs)).ratio == 1
    assert ratio.high == pytest.approx(found.high / 2.5)


def test_intervals_cover_the_crossing() -> None:
    rates = [3.0 * 1.145**k for k in range(-5, 6)]
    held = 0
    for repetition in range(60):
        found = fit_goodput(runs_of(law(3.0, 0.06, seed=repetition), rates, 8), draws=300)
        held += (found.low or 0) <= 3.0 <= (found.high or math.inf)
    assert held >= 53  # 95 % of 60 is 57, less two binomial standard deviations and the fit's small bias


@pytest.mark.parametrize("run", [(0.0, 0.5), (math.inf, 0.5), (1.0, 1.5), (1.0, math.nan)])
def test_impossible_runs(run: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needs a rate"):
        RateRun(*run, seed=0)


def test_impossible_questions() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        fit_goodput([])
    with pytest.raises(ValueError, match="share"):
        fit_goodput([RateRun(1.0, 0.5, 0)], share=1.0)


def test_ratio_on_the_same_plans_is_sharper_than_its_parts() -> None:
    rates = [2.0 * 1.1**k for k in range(16)]
    base, head = (runs_of(law(crossing, 0.15, n=2000), rates, 8) for crossing in (3.0, 3.9))
    found, swapped = goodput_ratio(base, head), goodput_ratio(head, base)
    assert found.ratio is not None
    assert found.ratio == pytest.approx(1.3, rel=0.03)
    assert found.effect is not None
    assert found.effect < 0
    assert found.low is not None
    assert found.high is not None
    parts = fit_goodput(base)
    assert parts.half_width is not None
    assert (found.high - found.low) / 2 / found.ratio < parts.half_width / 2
    assert swapped.effect == pytest.approx(-found.effect)
    per_device = goodput_ratio(base, head, base_devices=1, head_devices=2)
    assert per_device.ratio == pytest.approx(found.ratio / 2)


def test_ratio_needs_common_plans_and_two_crossings() -> None:
    one, other = RateRun(1.0, 1.0, 0), RateRun(1.0, 1.0, 1)
    with pytest.raises(ValueError, match="no seed in common"):
        goodput_ratio([one], [other])
    assert goodput_ratio([one], [one]).ratio is None


@pytest.mark.parametrize("start", [0.5, 2.0, 3.0, 20.0])
@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_search_finds_the_crossing_within_its_budget(start: float, spread: float) -> None:
    runs, reason = search(law(3.0, spread), start, budget=40)
    assert fit_goodput(runs).rate == pytest.approx(3.0, rel=0.12)
    assert "reached" in reason
    assert len(runs) <= 40


def test_search_says_when_the_budget_ends_it() -> None:
    runs, reason = search(law(3.0, 0.3), 2.0, budget=9, target=0.01)
    assert len(runs) == 9
    assert reason.startswith("budget of 9 runs used; half-width")


@pytest.mark.parametrize(("share", "where"), [(1.0, "above"), (0.0, "below")])
def test_search_gives_up_far_from_the_start(share: float, where: str) -> None:
    runs, reason = search(lambda rate, seed: share, 2.0, budget=100)
    assert len(runs) == 13
    assert where in reason


def test_search_brackets_by_one_and_a_half_and_repeats_rates_under_new_seeds() -> None:
    runs, _ = search(law(3.0, 0.05), 1.0, budget=30)
    assert [r.rate for r in runs[:4]] == pytest.approx([1.0, BRACKET, BRACKET**2, BRACKET**3], rel=1e-5)
    assert {r.seed for r in runs[:4]} == {0}
    assert len({r.seed for r in runs}) >= 3
    assert len({r.rate for r in runs}) < len(runs) / 2
    for bad in ({"start_rate": 0.0, "budget": 5}, {"start_rate": 1.0, "budget": 0}):
        with pytest.raises(ValueError, match="above 0"):
            next_rates([], **bad)  # type: ignore[arg-type]
