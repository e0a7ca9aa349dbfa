"""Planned looks: what each head's first deciding look says stays said, and no pair is run for nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pdbench.auto import auto_comparisons, fits, look_at, look_at_heads, more_pairs, planned_looks
from pdbench.errors import UsageError
from pdbench.settings import Budget
from pdbench.stats.sequential import Looks, Rule


def rule(looks: Looks | None = None) -> Rule:
    return Rule.of("ttft_p90", looks=looks)


def run(ttft: float, joint: float = 0.9) -> dict[str, Any]:
    return {"requests": {"scheduled": 40}, "attainment": {"joint": joint}, "ttft_ms": {"p90": ttft}}


def pairs_of(ratio: float, count: int, noise: float = 0.01) -> dict[str, list[dict[str, Any]]]:
    """Base and head whose P90 TTFT differs by ``ratio``."""
    own = np.random.Generator(np.random.PCG64(3)).normal(size=count)
    return {
        "base": [run(100.0) for _ in range(count)],
        "head": [run(float(100.0 * ratio * np.exp(noise * x))) for x in own],
    }


@pytest.mark.parametrize(
    ("y", "number", "status"),
    [
        ([0.3] * 5, 0, "go on"),
        ([0.3, 0.31, 0.29, 0.3, 0.3, 0.3], 1, "worse"),
        ([-0.3, -0.31, -0.29, -0.3, -0.3, -0.3], 1, "better"),
        ([0.0, 0.01, -0.01, 0.0, 0.0, 0.0], 1, "equivalent"),
        ([0.3, 0.31, 0.29, 0.3, 0.3, 0.3, *[-9.0] * 4], 1, "worse"),
        ([0.5, -0.5] * 4, 1, "go on"),
        ([0.5, -0.5] * 8, 3, "not resolved"),
        ([math.inf, *[0.0] * 5], 1, "worse"),
    ],
)
def test_the_first_look_that_decides(y: list[float], number: int, status: str) -> None:
    found = look_at(y, rule())
    assert (found.number, found.decision.status) == (number, status)
    assert found.decided == (status != "go on")


def test_heads_share_the_error() -> None:
    assert planned_looks(2, Budget()).alphas == tuple(alpha / 2 for alpha in Looks().alphas)
    assert planned_looks(1, Budget(pairs=11)).pairs == (6, 10)
    with pytest.raises(UsageError, match="--budget"):
        planned_looks(1, Budget(pairs=5))


@pytest.mark.parametrize(
    ("elapsed", "done", "more", "seconds", "enough"),
    [(0.0, 0, 6, 1.0, True), (10.0, 1, 5, 60.0, True), (10.0, 1, 5, 59.0, False), (1e9, 3, 3, None, True)],
)
def test_a_time_budget(elapsed: float, done: int, more: int, seconds: float | None, enough: bool) -> None:
    assert fits(elapsed, done, more, Budget(seconds=seconds)) is enough


@pytest.mark.parametrize(
    ("text", "budget"),
    [("10m", Budget(seconds=600.0)), ("12", Budget(pairs=12)), ("12 pairs", Budget(pairs=12)), ("90s", Budget(90.0))],
)
def test_budget_texts(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["0", "ten", "10 apples", "-3"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        Budget.parse(text)


def test_how_many_more() -> None:
    looks = Looks()
    open_ = look_at_heads(pairs_of(1.04, 6, 0.2), "base", ["base", "head"], "ttft_p90", looks)
    sure = look_at_heads(pairs_of(1.5, 6), "base", ["base", "head"], "ttft_p90", looks)
    assert more_pairs(open_, looks, 6) == 4
    assert more_pairs(open_ | {"other": sure["head"]}, looks, 6) == 4, "one head is still open"
    assert more_pairs(sure, looks, 6) == 0
    assert more_pairs(open_, looks, 16) == 0


def test_the_entry_is_that_of_its_look() -> None:
    items, said = auto_comparisons(pairs_of(1.5, 9), "base", ["base", "head"], "ttft_p90", Looks())
    item = next(one for one in items if one["primary"])
    assert (item["pairs"], item["look"], item["level"], item["verdict"]) == (6, 1, 0.996, "worse")
    y = np.log([r["ttft_ms"]["p90"] / 100 for r in pairs_of(1.5, 9)["head"][:6]])
    decision = look_at(y, rule()).decision
    assert decision.interval is not None
    assert item["interval"] == pytest.approx(decision.interval)
    assert said["decided"] == {"head": {"look": 1, "status": "worse"}}
    assert {one["level"] for one in items} == {0.996}


def test_before_the_first_look_nothing_is_said() -> None:
    items, said = auto_comparisons(pairs_of(1.5, 5), "base", ["base", "head"], "ttft_p90", Looks())
    assert all(one["interval"] is None and one["verdict"] == "not resolved" for one in items)
    assert said["decided"] == {"head": {"look": 0, "status": "not resolved"}}


def test_a_budget_that_ends_between_looks_leaves_it_open() -> None:
    items, said = auto_comparisons(pairs_of(1.04, 8, 0.2), "base", ["base", "head"], "ttft_p90", Looks())
    assert next(one for one in items if one["primary"])["verdict"] == "not resolved"
    assert said["decided"] == {"head": {"look": 1, "status": "not resolved"}}


def test_false_alarms_stay_within_what_the_looks_spend() -> None:
    """Two-sided: at most 2 x (0.2 + 0.3 + 0.5) %. Student's t is exact here, so 2,000 A/A comparisons must keep it
    up to their own chance (three standard deviations: 0.9 points). Testing after every pair alarms in 24 %."""
    ys = np.random.Generator(np.random.PCG64(5)).normal(0.0, 0.3, size=(2000, 16))
    found = [look_at(y, rule()).decision.status for y in ys]
    assert np.mean([status in ("better", "worse") for status in found]) <= 0.029
