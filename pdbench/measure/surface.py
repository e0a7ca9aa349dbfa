"""Attainment over all SLO limits at once, from stored latencies: no limit is worth a new run.

A request is good under limits (TTFT, TPOT, worst gap) when it completed and keeps all three. Counting requests
into the cells of a grid and summing along its three axes gives the joint attainment under *every* combination
of limits: one pass over the requests, exact, no interpolation. Two arms that share a plan can then be compared
everywhere, and the limit found at which their order turns over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench.measure.attainment import meets_jointly
from pdbench.measure.latency import Floats, floats
from pdbench.measure.slo import Objective

AXES = ("ttft", "tpot", "worst_gap")
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Limits of the default grid, as multiples of the workload's own."""

MARGIN = 0.02
"""An arm leads where its joint attainment is higher by more than this: the margin of the comparison."""

Leader = Literal["base", "head", "tie"]
Limits = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One arm's requests as the surface needs them: float ns per axis, NaN where a metric does not apply (then
    its limit is kept); ``eligible`` is False where no limit on these axes can save the request (it failed, or
    misses an objective on another metric)."""

    values: dict[str, Floats]
    eligible: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.eligible)


def outcomes_of(derived: pd.DataFrame, objectives: Sequence[Objective]) -> Outcomes:
    """From ``request_metrics`` of measured requests. Objectives on metrics off the axes stay as they are."""
    others = [objective for objective in objectives if objective.metric not in AXES]
    return Outcomes(
        {axis: floats(derived[f"{axis}_ns"]) for axis in AXES}, np.asarray(meets_jointly(derived, others), dtype=bool)
    )


def slo_limits(objectives: Sequence[Objective]) -> dict[str, float]:
    """The tightest limit in ns on each axis; +inf where the SLO has none."""
    found = dict.fromkeys(AXES, math.inf)
    for objective in objectives:
        if objective.metric in AXES and objective.limit_ns is not None:
            found[objective.metric] = min(found[objective.metric], float(objective.limit_ns))
    return found


def default_grid(arms: Sequence[Outcomes], limits: Limits) -> dict[str, Floats]:
    """Seven limits in ns an axis, rising: around the SLO's own limit, else quantiles of what was seen, with +inf
    last so that "no limit" is on the grid."""
    grid: dict[str, Floats] = {}
    for axis in AXES:
        if math.isfinite(limits[axis]):
            grid[axis] = np.array([round(limits[axis] * factor) for factor in FACTORS], dtype=np.float64)
            continue
        seen = np.concatenate([arm.values[axis] for arm in arms])
        seen = seen[np.isfinite(seen)]
        known = np.unique(np.ceil(np.quantile(seen, (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)))) if len(seen) else np.zeros(0)
        grid[axis] = np.concatenate([known, [np.inf]])
    return grid


def cube(arm: Outcomes, grid: Mapping[str, Floats]) -> npt.NDArray[np.float64]:
    """Joint attainment, shape (TTFT limits, TPOT limits, worst-gap limits): share of *all* requests of the arm
    that are good under each combination. Limits must rise. O(requests + cells)."""
    shape = tuple(len(grid[axis]) for axis in AXES)
    counts = np.zeros(shape, dtype=np.int64)
    if not len(arm):
        return np.full(shape, np.nan)
    places, fits = [], arm.eligible.copy()
    for axis in AXES:
        values = np.where(np.isnan(arm.values[axis]), -np.inf, arm.values[axis])
        place = np.searchsorted(grid[axis], values, side="left")  # the first limit that is not exceeded
        fits &= place < len(grid[axis])
        places.append(place)
    np.add.at(counts, tuple(place[fits] for place in places), 1)
    for number in range(len(AXES)):
        counts = np.cumsum(counts, axis=number)
    return counts / len(arm)


def joint(arm: Outcomes, limits: Limits) -> float:
    """Joint attainment under one combination of limits; NaN without requests."""
    return float(np.mean(arm.eligible & _kept(arm, limits, AXES))) if len(arm) else math.nan


def _kept(arm: Outcomes, limits: Limits, axes: Sequence[str]) -> npt.NDArray[np.bool_]:
    good = np.ones(len(arm), dtype=bool)
    for axis in axes:
        good &= np.isnan(arm.values[axis]) | (arm.values[axis] <= limits[axis])
    return good


def leader(base: float, head: float, margin: float = MARGIN) -> Leader:
    """Who has the higher attainment by more than ``margin``."""
    if head - base > margin + 1e-12:
        return "head"
    return "base" if base - head > margin + 1e-12 else "tie"


@dataclass(frozen=True, slots=True)
class Flip:
    """With ``axis`` limited to ``limit_ns`` and the other limits as they are, ``leads`` leads. ``ratio``: the new
    limit over the old one (0 where there was none)."""

    axis: str
    limit_ns: float
    ratio: float
    base: float
    head: float
    leads: Leader

    @property
    def change(self) -> float:
        """How far from the SLO, the same for halving and doubling; +inf where a limit was added."""
        return abs(math.log(self.ratio)) if 0 < self.ratio < math.inf else math.inf


def flips(base: Outcomes, head: Outcomes, limits: Limits, margin: float = MARGIN) -> list[Flip]:
    """Per axis the nearest limit, tighter and looser, at which another arm leads than at ``limits``; smallest
    change first.

    Attainment is a step function of a limit and changes at observed latencies only, so those (and the last
    nanosecond before each) are all the limits there are to try: nothing is missed between grid points. From a
    tie it is where either arm comes to lead.
    """
    now = leader(joint(base, limits), joint(head, limits), margin)
    found: list[Flip] = []
    for axis in AXES:
        tried = _candidates(base, head, axis, limits[axis])
        shares = [_along(arm, axis, limits, tried) for arm in (base, head)]
        gap = shares[1] - shares[0]
        leads = np.where(gap > margin + 1e-12, 1, np.where(-gap > margin + 1e-12, -1, 0))
        turned = leads != 0 if now == "tie" else leads == (-1 if now == "head" else 1)
        for rows in (
            np.flatnonzero(turned & (tried < limits[axis]))[-1:],
            np.flatnonzero(turned & (tried > limits[axis]))[:1],
        ):
            for k in rows:
                ratio = float(tried[k] / limits[axis]) if math.isfinite(limits[axis]) else 0.0
                who: Leader = "head" if leads[k] > 0 else "base"
                found.append(Flip(axis, float(tried[k]), ratio, float(shares[0][k]), float(shares[1][k]), who))
    return sorted(found, key=lambda flip: (flip.change, AXES.index(flip.axis)))


def _candidates(base: Outcomes, head: Outcomes, axis: str, limit: float) -> Floats:
    """Limits (whole ns, rising) worth trying: each latency seen, where a looser limit begins to admit it, and the
    last nanosecond below it, where a tighter limit ceases to."""
    seen = np.concatenate([arm.values[axis] for arm in (base, head)])
    seen = np.unique(seen[np.isfinite(seen)])
    admits = np.ceil(seen)
    below = admits - 1
    tried = np.concatenate([below[below < limit], admits[admits > limit]])
    return np.unique(tried[tried > 0])


def _along(arm: Outcomes, axis: str, limits: Limits, tried: Floats) -> Floats:
    """Joint attainment at each tried limit of one axis, the others fixed. O(n log n)."""
    good = arm.eligible & _kept(arm, limits, [other for other in AXES if other != axis])
    values = np.where(np.isnan(arm.values[axis]), -np.inf, arm.values[axis])[good]
    count = np.searchsorted(np.sort(values), tried, side="right")
    return np.asarray(count / max(1, len(arm)), dtype=np.float64)
