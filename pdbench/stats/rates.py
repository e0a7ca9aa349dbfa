"""Which rates to run next: bracket the crossing, then work around it, seed after seed, within a budget.

The first seed climbs or descends by 1.5 until the SLO's share lies between two rates. Then every round takes
a new seed and runs it at the four rates of a fixed grid that surround the crossing as it is known by then.
The grid is anchored at the start rate, so that rounds repeat rates and their runs can be pooled, and arms that
started together share rates and plans.

    while step.runs := next_rates(runs, start_rate=2.0, budget=24).runs: ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pdbench.stats.goodput import SHARE, Goodput, RateRun, fit_goodput, same_rate

BRACKET = 1.5
# 1.5 ** 12 = 130: a start rate further off than that was a typing error.
MOST_BRACKETS = 12
# Steps of the grid inside one bracket step: 1.5 ** (1 / 3) = 1.145.
_GRID = 3
_ROUND = 4
# Rates are kept to six digits: their place on the grid is known to about 1e-5.
_ROUNDING = 1e-4
# What is worth reaching: on shared CPU cores, and on GPUs (where pairs agree far better).
TARGET_CPU, TARGET_GPU = 0.10, 0.03


@dataclass(frozen=True, slots=True)
class Step:
    """The next runs as ``(rate, seed)``, the most telling first; none when done, and ``reason`` says why."""

    runs: tuple[tuple[float, int], ...]
    reason: str
    goodput: Goodput | None = None


def next_rates(
    runs: Sequence[RateRun], *, start_rate: float, budget: int, share: float = SHARE,
    target: float = TARGET_CPU, first_seed: int = 0,
) -> Step:  # fmt: skip
    """What to run next in one arm. ``budget``: runs of this arm in all. ``target``: relative half-width.

    Pure: the same runs give the same step. ``ValueError`` where the start rate, budget or target is not
    above 0.
    """
    if not 0 < start_rate < math.inf or budget < 1 or target <= 0:
        raise ValueError("needs a start rate, a budget and a target above 0")
    left = budget - len(runs)
    if not runs:
        return Step(((same_rate(start_rate), first_seed),), "first rate")
    found = fit_goodput(runs, share=share)
    if found.half_width is not None and found.half_width <= target:
        return Step((), f"half-width {found.half_width:.1%} reached", found)
    if left <= 0:
        reached = "not resolved" if found.half_width is None else f"{found.half_width:.1%}"
        return Step((), f"budget of {budget} runs used; half-width {reached}", found)
    rates = sorted({same_rate(run.rate) for run in runs})
    if found.where != "resolved":
        return _outwards(found, rates, runs, start_rate, first_seed)
    return _around(found, runs, start_rate, first_seed, left)


def _outwards(
    found: Goodput, rates: Sequence[float], runs: Sequence[RateRun], start_rate: float, first_seed: int
) -> Step:
    """One bracket step beyond the rates tested, all of which are on one side."""
    up = found.where == "above"
    edge = math.log((rates[-1] if up else rates[0]) / start_rate, BRACKET)
    step = math.floor(edge + _ROUNDING) + 1 if up else math.ceil(edge - _ROUNDING) - 1
    if abs(step) > MOST_BRACKETS:
        return Step((), f"the crossing lies {found.text}, {BRACKET:g}**{MOST_BRACKETS} from the start rate", found)
    rate = same_rate(start_rate * BRACKET**step)
    # Later rounds can still lose the bracket: then every seed that took part in the last one widens it.
    edge_rate = rates[-1] if up else rates[0]
    seeds = sorted({run.seed for run in runs if same_rate(run.rate) == edge_rate}) or [first_seed]
    return Step(((rate, seeds[0]),), f"bracket: {found.text} so far", found)


def _around(found: Goodput, runs: Sequence[RateRun], start_rate: float, first_seed: int, left: int) -> Step:
    """The four grid rates around the crossing, under the first seed that lacks one of them."""
    base = math.floor(_GRID * math.log(found.rate / start_rate, BRACKET) + _ROUNDING)
    # Nearest first: a round that the budget cuts short still ran what tells most.
    grid = [same_rate(start_rate * BRACKET ** ((base + k) / _GRID)) for k in (0, 1, -1, 2)][:_ROUND]
    done = {(same_rate(run.rate), run.seed) for run in runs}
    seed = first_seed
    while all((rate, seed) in done for rate in grid):
        seed += 1
    missing = tuple((rate, seed) for rate in grid if (rate, seed) not in done)[:left]
    return Step(missing, f"around {found.rate:.3g} under seed {seed}", found)
