"""The share of values up to each latency, as steps, with the failed ones counted.

A request without an answer has a latency of +inf: it is in the denominator, so the curve of an arm that fails 3 % of
its requests ends at 97 % and never reaches the top. Where a metric does not apply (NaN) the request is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pdbench.measure.latency import Floats


@dataclass(frozen=True, slots=True)
class Series:
    """Steps: at ``x[i]`` the share rises to ``y[i]`` and stays there until ``x[i+1]``. ``share_infinite``: what never
    comes, NaN without a value. ``count``: values in all."""

    x: Floats
    y: Floats
    share_infinite: float
    count: int = 0

    def __len__(self) -> int:
        return len(self.x)

    def at(self, value: float) -> float:
        """The share of values up to ``value``; NaN without one."""
        if not self.count:
            return math.nan
        place = int(np.searchsorted(self.x, value, side="right"))
        return float(self.y[place - 1]) if place else 0.0


def cdf(values_ms: npt.ArrayLike, limit: int = 400) -> Series:
    """The empirical distribution, in at most ``limit + 2`` steps; nowhere off by ``1 / limit`` or more. Exact where
    there are no more than ``limit`` values. The smallest and the largest finite value are always there."""
    if limit < 1:
        raise ValueError("a limit below 1 leaves no step")
    values = np.asarray(values_ms, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    count = len(values)
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return Series(finite, finite, 1.0 if count else math.nan, count)
    stride = math.ceil(count / limit)
    x, y = [], []
    wanted = 1
    while wanted <= len(finite):
        value = finite[wanted - 1]
        rank = int(np.searchsorted(finite, value, side="right"))
        x.append(value)
        y.append(rank / count)
        if rank == len(finite):
            break
        wanted = min(rank + stride, len(finite))
    return Series(np.array(x), np.array(y), 1 - len(finite) / count, count)
