"""Goodput: the offered rate at which the share of requests that meet the SLO falls through 90 %.

Attainment can only fall as the rate rises, but measured shares are noisy and do not know that. Isotonic
regression finds the closest falling curve through all runs (Barlow et al., Statistical Inference under Order
Restrictions, 1972); the crossing is read off between two rates. Its interval comes from a bootstrap over
seeds: a seed's plan, stretched to each rate, makes its runs rise and fall together, so a seed is drawn with
all its runs. With few seeds percentiles of a bootstrap are far too narrow; Student's t on its standard error
is not (Hesterberg, The American Statistician 69, 2015, 371-386). Seeds whose runs happen to agree would give an
interval of no width; as in the gate, no spread below one request in a run is believed.

    fit_goodput([RateRun(2.0, 0.99, seed=0), RateRun(3.0, 0.71, seed=0), ...]).text     # "2.31 (2.17 to 2.44)"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from pdbench.stats.laws import t_ppf
from pdbench.stats.paired import Floats

Where = Literal["resolved", "above", "below"]

SHARE = 0.90
DRAWS = 1000
# Two seeds can be drawn in three ways only: no interval worth printing.
LEAST_SEEDS = 3


@dataclass(frozen=True, slots=True)
class RateRun:
    """One run: offered rate (requests/s), joint attainment, the seed of its plan, measured requests."""

    rate: float
    attainment: float
    seed: int
    requests: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.rate < math.inf and 0 <= self.attainment <= 1 and self.requests > 0):
            raise ValueError(f"needs a rate above 0, an attainment in [0, 1] and a request, got {self}")


@dataclass(frozen=True, slots=True)
class Goodput:
    """``where`` is "resolved", or "above" / "below" every rate tested, which ``rate`` then names (highest or
    lowest tested). ``low`` or ``high`` is ``None`` where that end of the interval lies beyond the rates tested;
    both are where there are too few seeds (``seeds``). ``lower_bound``: one-sided, at ``level``; ``certified``
    says that it, and not ``rate``, is what may be claimed."""

    where: Where
    rate: float
    low: float | None
    high: float | None
    lower_bound: float | None
    share: float
    level: float
    runs: int
    seeds: int
    certified: bool = False

    @property
    def half_width(self) -> float | None:
        """Half of the interval over the crossing; ``None`` while an end is open."""
        if self.where != "resolved" or self.low is None or self.high is None:
            return None
        return (self.high - self.low) / (2 * self.rate)

    @property
    def claimed(self) -> float | None:
        """The rate that may be claimed: the crossing, or under ``certified`` its lower bound."""
        if self.certified:
            return self.lower_bound
        return self.rate if self.where == "resolved" else None

    @property
    def text(self) -> str:
        if self.where != "resolved":
            return f"{self.where} {self.rate:.3g}"
        if self.low is None and self.high is None:
            return f"{self.rate:.3g} (interval not resolved)"
        low = "below the lowest rate" if self.low is None else f"{self.low:.3g}"
        return f"{self.rate:.3g} ({low} to {'above the highest rate' if self.high is None else f'{self.high:.3g}'})"

    def document(self) -> dict[str, Any]:
        return {
            "where": self.where, "rate": self.rate, "interval": [self.low, self.high], "half_width": self.half_width,
            "lower_bound": self.lower_bound, "certified": self.certified, "claimed": self.claimed,
            "share": self.share, "level": self.level, "runs": self.runs, "seeds": self.seeds,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class GoodputRatio:
    """Head over base, per device where devices were given. ``ratio`` is ``None`` where a goodput is not
    resolved; ``low`` / ``high`` likewise. ``effect`` = ln(base / head): positive means that the head is
    worse."""

    ratio: float | None
    low: float | None
    high: float | None
    level: float
    seeds: int

    @property
    def effect(self) -> float | None:
        return None if self.ratio is None else -math.log(self.ratio)


def fit_goodput(
    runs: Sequence[RateRun], *, share: float = SHARE, level: float = 0.95, draws: int = DRAWS, seed: int = 0,
    certify: bool = False,
) -> Goodput:  # fmt: skip
    """The crossing of ``share`` with its bootstrap interval. Same arguments, same result.

    ``ValueError`` without a run, or where ``share`` or ``level`` is out of range.
    """
    _check(share, level)
    table = _Table.of(runs)
    crossing = table.crossing(np.ones(len(table.seeds)), share)
    where: Where = "resolved" if 0 < crossing < math.inf else "above" if crossing > 0 else "below"
    rate = crossing if where == "resolved" else float(table.rates[-1 if where == "above" else 0])
    low = high = lower = None
    if len(table.seeds) >= LEAST_SEEDS:
        drawn = table.bootstrap(draws, seed, share)
        low, high = table.interval(drawn, rate, level, share)
        # One-sided at the level is the low end of a two-sided interval at 2 * level - 1.
        lower = table.interval(drawn, rate, 2 * level - 1, share)[0]
    return Goodput(where, rate, low, high, lower, share, level, len(runs), len(table.seeds), certify)


def goodput_ratio(
    base: Sequence[RateRun], head: Sequence[RateRun], *, base_devices: int = 1, head_devices: int = 1,
    share: float = SHARE, level: float = 0.95, draws: int = DRAWS, seed: int = 0,
) -> GoodputRatio:  # fmt: skip
    """Goodput of the head over the base's, on the seeds both arms ran; a seed is drawn for both at once.

    What a hard or an easy plan does to both arms then cancels. ``ValueError`` without a common seed.
    """
    _check(share, level)
    common = {run.seed for run in base} & {run.seed for run in head}
    if not common:
        raise ValueError("the arms have no seed in common: a ratio needs the same plans")
    tables = [_Table.of([run for run in arm if run.seed in common]) for arm in (base, head)]
    ones, scale = np.ones(len(common)), base_devices / head_devices
    of_base, of_head = (table.crossing(ones, share) for table in tables)
    if not (0 < of_base < math.inf and 0 < of_head < math.inf):
        return GoodputRatio(None, None, None, level, len(common))
    ratio = scale * of_head / of_base
    if len(common) < LEAST_SEEDS:
        return GoodputRatio(ratio, None, None, level, len(common))
    drawn_base, drawn_head = (table.bootstrap(draws, seed, share) for table in tables)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = scale * drawn_head / drawn_base
    # Both unresolved in a draw: it may be anything, so it counts against both ends.
    floor = max(table.least_error(share) for table in tables)
    low = _t_interval(np.where(np.isnan(ratios), 0.0, ratios), ratio, level, len(common), floor)[0]
    high = _t_interval(np.where(np.isnan(ratios), math.inf, ratios), ratio, level, len(common), floor)[1]
    return GoodputRatio(ratio, low, high, level, len(common))


def falling_fit(shares: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """The closest falling curve, in order of rate: isotonic regression by pooling adjacent violators."""
    fitted: Floats = isotonic_regression(shares, weights=weights, increasing=False).x
    return fitted


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Requests offered and met, by seed (rows) and rate (columns, rising). ``kept``: rates that one seed alone
    ran, mostly while bracketing; they stay in every draw, since a draw without them would know less."""

    rates: Floats
    seeds: tuple[int, ...]
    offered: Floats
    met: Floats

    @classmethod
    def of(cls, runs: Sequence[RateRun]) -> _Table:
        if not runs:
            raise ValueError("needs at least one run")
        rates = sorted({same_rate(run.rate) for run in runs})
        seeds = tuple(sorted({run.seed for run in runs}))
        offered, met = np.zeros((len(seeds), len(rates))), np.zeros((len(seeds), len(rates)))
        for run in runs:
            at = seeds.index(run.seed), rates.index(same_rate(run.rate))
            offered[at] += run.requests
            met[at] += run.requests * run.attainment
        return cls(np.array(rates), seeds, offered, met)

    def curve(self, counts: Floats) -> tuple[Floats, Floats]:
        """Rates and the falling curve through them, with seed i counted ``counts[i]`` times."""
        alone = (self.offered > 0).sum(axis=0) == 1
        weights = np.where(alone, self.offered.sum(axis=0), counts @ self.offered)
        seen = weights > 0
        met = np.where(alone, self.met.sum(axis=0), counts @ self.met)[seen]
        return self.rates[seen], falling_fit(met / weights[seen], weights[seen])

    def crossing(self, counts: Floats, share: float) -> float:
        """Where that curve falls through ``share``; inf above every rate, 0 below."""
        rates, fit = self.curve(counts)
        j = _first_under(fit, share)
        if j in (None, 0):
            return math.inf if j is None else 0.0
        part = (fit[j - 1] - share) / (fit[j - 1] - fit[j])
        return float(rates[j - 1] + max(part, 0.0) * (rates[j] - rates[j - 1]))

    def least_error(self, share: float) -> float:
        """Standard error of ln(crossing) if each seed's share were off by one request of a run around it."""
        ones = np.ones(len(self.seeds))
        rates, fit = self.curve(ones)
        j = _first_under(fit, share)
        if j in (None, 0):
            return 0.0
        around = self.offered[:, np.isin(self.rates, rates[j - 1 : j + 1])]
        one_request = 1 / float(around[around > 0].mean())
        per_share = (rates[j] - rates[j - 1]) / (fit[j - 1] - fit[j]) / self.crossing(ones, share)
        return one_request * float(per_share) / math.sqrt(len(self.seeds))

    def bootstrap(self, draws: int, seed: int, share: float) -> Floats:
        """Crossings of ``draws`` resamples of the seeds."""
        rng, k = np.random.Generator(np.random.PCG64(seed)), len(self.seeds)
        counts = rng.multinomial(k, np.full(k, 1 / k), size=draws).astype(np.float64)
        return np.array([self.crossing(row, share) for row in counts])

    def interval(self, drawn: Floats, rate: float, level: float, share: float) -> tuple[float | None, float | None]:
        """Ends beyond the rates tested are ``None``: nothing was seen there."""
        low, high = _t_interval(drawn, rate, level, len(self.seeds), self.least_error(share))
        low = None if low is None or low < self.rates[0] else low
        return low, None if high is None or high > self.rates[-1] else high


def same_rate(rate: float) -> float:
    """Rates that differ after the sixth digit are one rate: the plans' rounding is coarser."""
    return float(f"{rate:.6g}")


def _first_under(fit: Floats, share: float) -> int | None:
    """Place of the first rate at which the curve lies under ``share``."""
    under = np.flatnonzero(fit < share - 1e-12)
    return int(under[0]) if len(under) else None


def _t_interval(
    drawn: Floats, centre: float, level: float, units: int, floor: float
) -> tuple[float | None, float | None]:
    """``centre * exp(± t * SE)``, SE the standard deviation of the draws' logarithms, corrected for ``units``,
    and at least ``floor``. An end is ``None`` where more draws than its tail lie beyond what was tested."""
    known = drawn[(drawn > 0) & np.isfinite(drawn)]
    tail = (1 - level) / 2
    if len(known) < 2:
        return None, None
    error = float(np.std(np.log(known), ddof=1)) * math.sqrt(units / (units - 1))
    half = t_ppf(1 - tail, units - 1) * max(error, floor)
    low = centre * math.exp(-half) if np.mean(drawn == 0) <= tail else None
    high = centre * math.exp(half) if np.mean(np.isposinf(drawn)) <= tail else None
    return low, high


def _check(share: float, level: float) -> None:
    if not 0 < share < 1 or not 0.5 < level < 1:
        raise ValueError("needs a share in (0, 1) and a level in (0.5, 1)")
