"""The SLO surface for a picture: who keeps more requests under every pair of limits, and where the lead changes.

Attainment of every arm over a grid of TTFT limits times gap limits, the third limit where the SLO has it; counted by
``measure.surface``, which is exact. The grid is finer than that of ``pdbench surface`` and as wide as what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pdbench.measure.latency import Floats
from pdbench.measure.slo import Objective
from pdbench.measure.surface import AXES, MARGIN, Outcomes, cube, slo_limits
from pdbench.units import NS_PER_MS
from pdbench.views.numbers import Flags, Numbers

SIZE = 24
LABELS = {"ttft": "TTFT", "tpot": "TPOT", "worst_gap": "worst gap"}


@dataclass(frozen=True, slots=True)
class Lead:
    """Head against base. ``points``: attainment of the head less that of the base, in percentage points (positive: the
    head keeps more requests). ``leads``: 1 head, -1 base, 0 within the margin. ``flip``: cells beside which another
    arm leads."""

    head: str
    points: Floats
    leads: npt.NDArray[np.int8]
    flip: Flags


@dataclass(frozen=True, slots=True)
class Grid:
    """Limits in ms along rows (``rows``: metric) and columns; +inf is no limit. ``joint``: by arm, the share of its
    measured requests that keep all limits, rows by columns. ``slo``: the cell of the declared limits, ``None`` where
    one of the two is not declared. ``fixed``: the third metric and its limit."""

    rows: str
    columns: str
    rows_ms: Floats
    columns_ms: Floats
    joint: Mapping[str, Floats]
    base: str
    leads: tuple[Lead, ...]
    slo: tuple[int, int] | None
    fixed: tuple[str, float]
    margin: float
    requests: Mapping[str, int]


def grid(
    arms: Mapping[str, Numbers],
    objectives: Sequence[Objective],
    *,
    base: str | None = None,
    rows: str = "ttft",
    columns: str | None = None,
    size: int = SIZE,
) -> Grid | None:
    """The surface of arms that replayed the same plans; ``None`` without a measured request in each.

    ``columns``: TPOT where the SLO limits it or limits no worst gap, else the worst gap. Requests that miss an
    objective on another metric stay missed.
    """
    found = {name: _outcomes(numbers.measured(), objectives) for name, numbers in arms.items()}
    if not found or not all(len(one) for one in found.values()):
        return None
    limits = {axis: limit / NS_PER_MS for axis, limit in slo_limits(objectives).items()}
    if columns is None:
        columns = "worst_gap" if math.isinf(limits["tpot"]) and math.isfinite(limits["worst_gap"]) else "tpot"
    third = next(axis for axis in AXES if axis not in (rows, columns))
    axes = {name: _axis(list(found.values()), name, limits[name], size) for name in (rows, columns)}
    axes[third] = np.array([limits[third]])
    flat = {name: _flat(cube(one, axes), AXES.index(third), rows, columns) for name, one in found.items()}
    chosen = base if base in flat else next(iter(flat))
    cell = None
    if math.isfinite(limits[rows]) and math.isfinite(limits[columns]):
        cell = (int(np.searchsorted(axes[rows], limits[rows])), int(np.searchsorted(axes[columns], limits[columns])))
    return Grid(
        rows=rows,
        columns=columns,
        rows_ms=axes[rows],
        columns_ms=axes[columns],
        joint=flat,
        base=chosen,
        leads=tuple(_lead(head, flat[chosen], one) for head, one in flat.items() if head != chosen),
        slo=cell,
        fixed=(third, limits[third]),
        margin=MARGIN,
        requests={name: len(one) for name, one in found.items()},
    )


def _outcomes(numbers: Numbers, objectives: Sequence[Objective]) -> Outcomes:
    """In milliseconds: the limits are whole nanoseconds, so the unit moves no comparison."""
    eligible = numbers.completed.copy()
    for objective in objectives:
        if objective.per_request and objective.metric not in AXES:
            values = getattr(numbers, f"{objective.metric}_ms")
            eligible &= np.isnan(values) | (values <= (objective.limit_ns or 0) / NS_PER_MS)
    return Outcomes({axis: getattr(numbers, f"{axis}_ms") for axis in AXES}, eligible)


def _axis(arms: Sequence[Outcomes], axis: str, limit: float, size: int) -> Floats:
    """Limits from the 1st to the 99th percentile of what was seen, evenly spread by ratio, and the SLO's own."""
    seen = np.concatenate([arm.values[axis] for arm in arms])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    declared = [limit] if math.isfinite(limit) else []
    if not len(seen):
        return np.array(declared or [math.inf])
    low, high = (float(np.quantile(seen, q)) for q in (0.01, 0.99))
    low, high = min([low, *declared]), max([high, *declared])
    if declared:
        low, high = min(low, limit / 2), max(high, limit * 2)
    spread = np.geomspace(low, high, max(2, size))
    if declared:  # beside the SLO's own limit no other that differs by rounding only
        spread = spread[np.abs(spread / limit - 1) > 1e-6]
    return np.unique(np.concatenate([spread, declared]))


def _flat(cells: Floats, third: int, rows: str, columns: str) -> Floats:
    flat: Floats = np.take(cells, 0, axis=third)
    return flat if AXES.index(rows) < AXES.index(columns) else flat.T


def _lead(head: str, base: Floats, other: Floats) -> Lead:
    points = 100 * (other - base)
    leads = np.where(points > 100 * MARGIN + 1e-9, 1, np.where(-points > 100 * MARGIN + 1e-9, -1, 0)).astype(np.int8)
    return Lead(head, points, leads, flip_cells(leads))


def flip_cells(leads: npt.NDArray[np.int8]) -> Flags:
    """Where one arm's lead turns into the other's along a row or a column: the two cells, and the level ones between
    them. A tie beside the lead of one arm only is no flip."""
    flip = np.zeros(leads.shape, dtype=bool)
    for along, marks in ((leads, flip), (leads.T, flip.T)):
        for line, mark in zip(along, marks, strict=True):
            led = np.flatnonzero(line)
            for one, other in pairwise(led):
                if line[one] != line[other]:
                    mark[one : other + 1] = True
    return flip
