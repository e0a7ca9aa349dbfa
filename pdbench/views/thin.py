"""Down-sampling that does not lie: every bucket keeps its smallest and its largest value.

An average, or every k-th point, would hide the one stall that the picture is about. So the x-axis is cut into buckets
and of each the minimum and the maximum stay (as in Steinarsson, "Downsampling Time Series for Visual Representation",
2013, min-max): at a pixel or more a bucket, the drawing covers the same ink as all points would.

    kept = thin(time_s, gap_ms, 4000); draw(time_s[kept], gap_ms[kept])
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pdbench.measure.latency import Ints

LEAST = 4


def thin(x: npt.ArrayLike, y: npt.ArrayLike, limit: int) -> Ints:
    """Positions to keep, ascending, at most ``limit``: the first, the last, and of each bucket of ``x`` the minimum and
    the maximum of ``y``. All of them where there are no more than ``limit``.

    ``x`` need not be in order. A point without a number (NaN in either, an infinite ``x``) stays only where nothing
    is left out; an infinite ``y`` counts as the extreme it is. ``ValueError`` below a limit of 4.
    """
    if limit < LEAST:
        raise ValueError(f"a limit of {limit} cannot hold first, last, minimum and maximum")
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) <= limit:
        return np.arange(len(xs), dtype=np.int64)
    ends = np.array([0, len(xs) - 1], dtype=np.int64)
    known = np.isfinite(xs) & ~np.isnan(ys)
    places = None if known.all() else np.flatnonzero(known)
    if places is not None:
        xs, ys = xs[places], ys[places]
    if not len(xs):
        return ends
    count = (limit - 2) // 2
    bucket = _buckets(xs, count)
    kept = [ends]
    for extreme, never in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        best = np.full(count, never)
        extreme.at(best, bucket, ys)
        at = np.flatnonzero(ys == best[bucket])
        first = at[np.unique(bucket[at], return_index=True)[1]]
        kept.append(first if places is None else places[first])
    return np.unique(np.concatenate(kept)).astype(np.int64)


def _buckets(x: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """Which of ``count`` equal parts of its range each value lies in."""
    low, width = x.min(), x.max() - x.min()
    if not width > 0:
        return np.zeros(len(x), dtype=np.intp)
    place = ((x - low) / width * count).astype(np.intp)
    return np.asarray(np.minimum(place, count - 1), dtype=np.intp)
