"""Intervals for a share of requests, when requests are not independent.

Late requests come in bunches: one long queue spoils many in a row. A share of n requests is then as uncertain
as that of ``n_eff = n / deff`` independent ones, where the design effect ``deff`` is how much larger the
variance of the share is than the binomial one (Kish, Survey Sampling, 1965). It is estimated from the
shares of at least 20 batches of one run, or from several runs; intervals then use ``n_eff``, corrected for
the few degrees of freedom of that estimate (Korn & Graubard, Survey Methodology 24, 1998; compared with
others by Dean & Pagano, J. Survey Stat. Methodol. 3, 2015).

    found = estimate_share([(58, 60), (60, 60), (51, 60)])     # (met, offered) of three runs
    certify(found, 0.90).outcome                               # "cannot certify"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pdbench.stats.laws import beta_ppf, norm_ppf, t_ppf
from pdbench.stats.paired import Floats

Outcome = Literal["met", "missed", "cannot certify"]
# Fewer batches estimate a variance too badly (Law, Simulation Modeling and Analysis, 5th ed., 9.5.3).
LEAST_BATCHES = 20


@dataclass(frozen=True, slots=True)
class ShareEstimate:
    """A share in [0, 1] with its two-sided interval. ``deff`` is ``None`` where it cannot be estimated: with
    a single unit, or because every unit has the same share; ``n_eff`` is then the number of units."""

    share: float
    interval: tuple[float, float]
    level: float
    n: int
    n_eff: float
    deff: float | None
    units: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whether a target share is met for certain, missed for certain, or neither; ``reason`` says which fact
    decided. ``bounds``: one-sided lower and upper bound, each at ``level``."""

    outcome: Outcome
    target: float
    bounds: tuple[float, float]
    level: float
    reason: str


def wilson(share: float, n_eff: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (J. Am. Stat. Assoc. 22, 1927) for ``n_eff`` trials, which need not be whole."""
    _check(share, n_eff, level)
    z = norm_ppf((1 + level) / 2)
    shrink = 1 + z * z / n_eff
    middle = (share + z * z / (2 * n_eff)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n_eff + z * z / (4 * n_eff * n_eff))
    # The share itself bounds either end: near 0 and 1 rounding would else cross it.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def clopper_pearson(share: float, n_eff: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper & Pearson's exact interval (Biometrika 26, 1934) through the beta distribution, which takes
    numbers of trials that are not whole."""
    _check(share, n_eff, level)
    tail, met = (1 - level) / 2, share * n_eff
    # A billionth of a request is rounding; the beta distribution overflows on it.
    low = 0.0 if met < 1e-9 else beta_ppf(tail, met, n_eff - met + 1)
    high = 1.0 if n_eff - met < 1e-9 else beta_ppf(1 - tail, met + 1, n_eff - met)
    return min(low, share), max(high, share)


def batch_shares(good: npt.ArrayLike, batches: int = LEAST_BATCHES) -> Floats:
    """Means of ``batches`` consecutive batches of equal size, in order of arrival; what is left over at the
    start is dropped, being nearest to warm-up. ``ValueError`` with fewer requests or under 20 batches."""
    values = np.asarray(good, dtype=np.float64).ravel()
    if batches < LEAST_BATCHES or len(values) < batches:
        raise ValueError(f"needs {LEAST_BATCHES} batches and a request for each, got {batches} and {len(values)}")
    size = len(values) // batches
    means: Floats = values[len(values) - size * batches :].reshape(batches, size).mean(axis=1)
    return means


def design_effect(shares: npt.ArrayLike, size: float) -> float | None:
    """How much larger the variance of units' shares is than the binomial one, at least 1.

    ``shares``: one a unit, batches of one run or whole runs; ``size``: requests a unit. ``None`` where the
    units show no spread to estimate it from: one unit, or none or all of the requests met in every unit.
    """
    values = np.asarray(shares, dtype=np.float64).ravel()
    if size <= 0:
        raise ValueError("size must be above 0")
    middle = float(np.mean(values)) if len(values) else 0.0
    if len(values) < 2 or middle <= 0 or middle >= 1:
        return None
    return max(size * float(np.var(values, ddof=1)) / (middle * (1 - middle)), 1.0)


def estimate_share(units: Sequence[tuple[float, int]], level: float = 0.95, *, exact: bool = False) -> ShareEstimate:
    """The pooled share over units ``(met, offered)``: runs, or 20 and more batches of one run.

    Wilson's interval, or with ``exact`` Clopper and Pearson's, on ``n_eff = n / deff * (z / t)**2``, t with
    as many degrees of freedom as units less one. ``ValueError`` without a request.
    """
    n = sum(offered for _, offered in units)
    if not units or n <= 0 or any(offered <= 0 or not 0 <= met <= offered for met, offered in units):
        raise ValueError("every unit needs a request, and 0 <= met <= offered")
    share = min(sum(met for met, _ in units) / n, 1.0)
    deff = design_effect([met / offered for met, offered in units], n / len(units))
    if deff is None:
        n_eff = float(len(units))
    else:
        tail = (1 + level) / 2
        few = (norm_ppf(tail) / t_ppf(tail, len(units) - 1)) ** 2
        n_eff = n / deff * few
    law = clopper_pearson if exact else wilson
    return ShareEstimate(share, law(share, n_eff, level), level, n, n_eff, deff, len(units))


def certify(found: ShareEstimate, target: float, level: float = 0.95) -> Certificate:
    """Whether at least ``target`` of all requests would meet the limit, from one-sided exact bounds."""
    if not 0 < target < 1:
        raise ValueError(f"the target must be in (0, 1), got {target:g}")
    # A two-sided interval at 2 * level - 1 has one-sided bounds at the level.
    bounds = clopper_pearson(found.share, found.n_eff, 2 * level - 1)

    def certificate(outcome: Outcome, reason: str) -> Certificate:
        return Certificate(outcome, target, bounds, level, reason)

    if bounds[0] >= target:
        return certificate("met", f"at least {bounds[0]:.1%} with {level:.0%} confidence")
    if bounds[1] < target:
        return certificate("missed", f"at most {bounds[1]:.1%} with {level:.0%} confidence")
    needed = math.ceil(math.log(1 - level) / math.log(target))
    if found.n_eff < needed:
        what = f"worth {found.n_eff:.0f} independent ones, and {target:.0%} needs {needed} even if none is late"
        return certificate("cannot certify", f"{found.n} requests in {found.units} units are {what}")
    return certificate("cannot certify", f"the share lies in {bounds[0]:.1%} to {bounds[1]:.1%}, on either side")


def _check(share: float, n_eff: float, level: float) -> None:
    if not 0 <= share <= 1 or not n_eff > 0 or not 0 < level < 1:
        raise ValueError("needs a share in [0, 1], n_eff > 0 and a level in (0, 1)")
