"""The course of a call: one row a second of each arm, in full for the last minutes, thinned before that.

A page that is opened after hours gets all of it in one answer, and that must stay small: while it is made, nobody else
is answered. What is thinned keeps the smallest and the largest value of every stretch (``views.thin``).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from pdbench.livestate import COLUMNS, Point

RECENT = 300
"""So many rows of an arm stay as they came."""
_KEPT = 60  # of the older ones: so many for the extremes of each column
_BREAKS = 100  # and at most so many where one run ends and another begins
MOST = RECENT + 2 * (_KEPT * (len(COLUMNS) - 1) + _BREAKS)
"""An arm never has more rows than these."""

Columns = dict[str, list[float | None]]
_NUMBER = attrgetter("number")


class Row(NamedTuple):
    """``values``: in the order of ``COLUMNS``. ``number``: of all rows of the call, in the order in which they came."""

    number: int
    values: tuple[float | None, ...]


class Course:
    """Of ``arms`` arms."""

    def __init__(self, arms: int) -> None:
        self._rows: list[list[Row]] = [[] for _ in range(arms)]
        self.last = 0

    def add(self, arm: int, point: Point) -> None:
        """A point comes after all others."""
        self.last += 1
        rows = self._rows[arm]
        rows.append(Row(self.last, tuple(point[name] for name in COLUMNS)))
        if len(rows) > MOST:
            rows[:-RECENT] = thinned(rows[:-RECENT])

    def after(self, number: int) -> list[list[Row]]:
        """Of each arm what came after a row, as far as it was kept. Lists of the caller's own."""
        return [rows[bisect_right(rows, number, key=_NUMBER) :] for rows in self._rows]


def columns(rows: Sequence[Row]) -> Columns:
    """As a chart takes them. What is infinite is drawn as little as what is not there."""
    known = [[None if one is None or math.isinf(one) else one for one in row.values] for row in rows]
    return dict(zip(COLUMNS, map(list, zip(*known, strict=True)), strict=True)) if rows else {}


def thinned(rows: Sequence[Row]) -> list[Row]:
    """Those with the extremes of some column, and those that break the lines."""
    import numpy as np

    from pdbench.views.thin import thin

    table = np.array([row.values for row in rows], dtype=np.float64)
    breaks = np.flatnonzero(np.isnan(table[:, 1:]).all(axis=1))
    kept = [breaks[:: max(1, math.ceil(len(breaks) / _BREAKS))]]
    kept += [thin(table[:, 0], table[:, column], _KEPT) for column in range(1, table.shape[1])]
    return [rows[place] for place in np.unique(np.concatenate(kept)).tolist()]
