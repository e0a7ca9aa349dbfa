"""How many requests kept the SLO: per objective, and jointly.

Two marginal 90 % guarantee only 80 % jointly, so both are computed. The denominator is the requests
*offered*: a failed request is a miss of every objective it could have met.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench.measure.latency import Floats, floats
from pdbench.measure.slo import ERRORS, POOLED_METRICS, Objective


def attainment(derived: pd.DataFrame, gaps: Floats, objective: Objective) -> float:
    """Share in [0, 1] of requests offered (of gaps, for a pooled metric) that keep the limit; NaN if absent.

    ``derived``: measured rows only. A request to which the metric does not apply leaves the denominator.
    Where every request failed there is no gap to pool, and the attainment of a pooled limit is 0: a dead
    server is a miss, not a gap in the measurement. Where requests completed but none has the metric, it is
    absent.
    """
    completed = derived["completed"].to_numpy(dtype=bool)
    if not len(completed):
        return math.nan
    if objective.metric == ERRORS:
        return float(completed.mean())
    if objective.metric in POOLED_METRICS:
        values = gaps if len(gaps) or completed.any() else np.array([np.inf])
    else:
        values = floats(derived[f"{objective.metric}_ns"])
        if completed.any() and np.isnan(values[completed]).all():
            return math.nan
    values = values[~np.isnan(values)]
    return float(np.mean(values <= (objective.limit_ns or 0))) if len(values) else math.nan


def meets_jointly(derived: pd.DataFrame, objectives: Iterable[Objective]) -> npt.NDArray[np.bool_]:
    """bool[n]: completed, and every per-request objective that applies is met at once."""
    good = derived["completed"].to_numpy(dtype=bool).copy()
    for objective in objectives:
        if objective.per_request:
            values = floats(derived[f"{objective.metric}_ns"])
            good &= np.isnan(values) | (values <= (objective.limit_ns or 0))
    return good


def slo_met(share: float, objective: Objective) -> bool:
    """Whether an attainment reaches the objective's share. An absent metric (NaN) is never met."""
    return bool(share >= objective.share - 1e-12)
