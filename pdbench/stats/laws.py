"""Quantiles and tails of the few laws that are used here, from ``scipy.special``.

``scipy.stats`` gives the same numbers and costs half a second to import: more than all else of a short run's start.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

_EXACT = 33
"""Values up to which the exact law of the number of inversions is used."""


class Trend(NamedTuple):
    """``tau``: Kendall's, 1 where the values only rise. ``p_rising``: one-sided, against no trend."""

    tau: float
    p_rising: float
    p_two_sided: float


def t_ppf(level: float, freedom: float) -> float:
    """Quantile of Student's t: the x with P(T <= x) = ``level``."""
    return float(special.stdtrit(freedom, level))


def t_sf(x: float, freedom: float) -> float:
    """Upper tail of Student's t: P(T > x)."""
    return float(special.stdtr(freedom, -x))


def norm_ppf(level: float) -> float:
    """Quantile of the standard normal law."""
    return float(special.ndtri(level))


def beta_ppf(level: float, a: float, b: float) -> float:
    """Quantile of the beta law on [0, 1]."""
    return float(special.betaincinv(a, b, level))


def mann_kendall(values: npt.ArrayLike) -> Trend:
    """Do values in order of time rise? Kendall's tau-b against their places (Mann 1945, *Econometrica* 13:245; Kendall
    1975, *Rank Correlation Methods*): the exact law without ties, the normal one with them. Raises
    ``ValueError`` where no two values differ: they have no order."""
    y = np.asarray(values, dtype=np.float64)
    n = len(y)
    if n < 2 or (y == y[0]).all():
        raise ValueError("a trend needs two values that differ")
    later, earlier = np.triu_indices(n, 1)[::-1]
    score = float(np.sign(y[later] - y[earlier]).sum())
    pairs = n * (n - 1) // 2
    _, counts = np.unique(y, return_counts=True)
    tied = counts[counts > 1].astype(np.float64)
    tau = score / math.sqrt(pairs * (pairs - float((tied * (tied - 1)).sum()) / 2))
    if n <= _EXACT and not len(tied):
        falls = round((pairs - score) / 2)
        law = _inversions(n)
        rising, falling = float(law[: falls + 1].sum()), float(law[falls:].sum())
    else:
        spread = n * (n - 1) * (2 * n + 5) - float((tied * (tied - 1) * (2 * tied + 5)).sum())
        z = score / math.sqrt(spread / 18)
        rising, falling = float(special.ndtr(-z)), float(special.ndtr(z))
    return Trend(tau, rising, min(1.0, 2 * min(rising, falling)))


def _inversions(n: int) -> npt.NDArray[np.float64]:
    """P(k inversions in a random order of n), k = 0 to n(n-1)/2."""
    law = np.ones(1)
    for i in range(2, n + 1):
        law = np.convolve(law, np.full(i, 1 / i))
    return law
