"""Is an SLO met, as far as a handful of runs can say? A run is the unit: one share a run, Student's t over runs.

Requests of one run wait in one queue, so an interval over requests is far too narrow. Over k runs the interval is
wide, and honest; like the gate it believes no spread below one request in n.

    judge_share([0.95, 0.97, 0.96, 0.94, 0.96, 0.95], target=0.90, offered=60).outcome    # "met"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pdbench.stats.laws import t_ppf

Outcome = Literal["met", "missed", "not certain"]


@dataclass(frozen=True, slots=True)
class ShareJudgement:
    """``bounds``: one-sided lower and upper bound of the mean share, each at ``level``, cut to [0, 1]."""

    outcome: Outcome
    share: float
    target: float
    bounds: tuple[float, float] | None
    level: float
    runs: int

    def document(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "share": self.share,
            "target": self.target,
            "bounds": list(self.bounds) if self.bounds else None,
            "level": self.level,
            "runs": self.runs,
        }


def judge_share(shares: Sequence[float], *, target: float, offered: int, level: float = 0.95) -> ShareJudgement:
    """Whether runs with these shares keep ``target``. ``offered``: requests of the smallest run.

    ``ValueError`` without a run, or for a share outside [0, 1].
    """
    values = np.asarray(shares, dtype=np.float64)
    if not len(values) or offered < 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("needs a run, a request, and shares in [0, 1]")
    share, runs = float(np.mean(values)), len(values)
    if runs < 2:
        return ShareJudgement("not certain", share, target, None, level, runs)
    spread = max(float(np.std(values, ddof=1)), 1.0 / offered)
    half = t_ppf(level, runs - 1) * spread / math.sqrt(runs)
    bounds = max(share - half, 0.0), min(share + half, 1.0)
    outcome: Outcome = "met" if bounds[0] >= target else "missed" if bounds[1] < target else "not certain"
    return ShareJudgement(outcome, share, target, bounds, level, runs)
