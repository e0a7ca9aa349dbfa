"""How noisy is this machine, and what can a gate see on it? From A/A pairs: the same system as base and head.

Whatever an A/A pair shows is noise, so the standard deviation of its y is what decides which slowdown a number of
pairs can tell from nothing. The minimum detectable effect of k pairs is ``(t.99 + t.90) * s / sqrt(k)``: a one-sided
test at 1 % finds it in 90 % of comparisons.

    detectable(0.06, 6, "log_ratio")     # 0.13: with a pair SD of 6 %, six pairs see a slowdown of 13 %
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdbench.stats.gate import Entry, RunEvidence
from pdbench.stats.laws import t_ppf
from pdbench.stats.paired import MARGINS, Scale, pair_values, scale_of, spread_floor
from pdbench.stats.sequential import Looks

LEAST_PAIRS = 4
_LEVEL, _POWER = 0.99, 0.90


def detectable(sd: float, pairs: int, scale: Scale) -> float:
    """The minimum detectable effect, as a ratio minus 1 or a difference. ``ValueError`` for fewer than 2 pairs."""
    if pairs < 2 or sd < 0:
        raise ValueError("needs 2 pairs and sd >= 0")
    freedom = pairs - 1
    effect = (t_ppf(_LEVEL, freedom) + t_ppf(_POWER, freedom)) * sd / math.sqrt(pairs)
    return math.expm1(min(effect, 700.0)) if scale == "log_ratio" else effect


def pair_noise(base: Sequence[Entry], head: Sequence[Entry], looks: Looks | None = None) -> dict[str, dict[str, Any]]:
    """For each metric that applies to every pair: its pair SD (never below the floor), mean y, and what each look
    can see (``mde``, by number of pairs as text). ``ValueError`` for fewer pairs than a spread needs."""
    if len(base) < LEAST_PAIRS:
        raise ValueError(f"needs {LEAST_PAIRS} pairs or more")
    found: dict[str, dict[str, Any]] = {}
    for metric in MARGINS:
        y = pair_values(base, head, metric)
        if not np.isfinite(y).all():
            continue
        scale = scale_of(metric)
        sd = max(float(np.std(y, ddof=1)), spread_floor(base, head, metric))
        mde = {str(pairs): detectable(sd, pairs, scale) for pairs in (looks or Looks()).pairs}
        found[metric] = {"scale": scale, "pair_sd": sd, "mean": float(np.mean(y)), "mde": mde}
    return found


def probe_noise(base: Sequence[RunEvidence], head: Sequence[RunEvidence]) -> dict[str, float]:
    """SD of each kernel's logarithm ratio inside a pair, about 0: the drift that a gate's probe meets when nothing
    is wrong. Pairs without a probe are left out."""
    moved: dict[str, list[float]] = {}
    for one, other in zip(base, head, strict=True):
        for kernel in sorted(set(one.probe) & set(other.probe)):
            moved.setdefault(kernel, []).append(math.log(other.probe[kernel] / one.probe[kernel]))
    return {kernel: math.sqrt(float(np.mean(np.square(ratios)))) for kernel, ratios in moved.items()}
