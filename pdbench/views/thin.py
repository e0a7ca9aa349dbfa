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
    known = np.flatnonzero(np.isfinite(xs) & ~np.isnan(ys))
    if not len(known):
        return ends
    bucket = _buckets(xs[known], (limit - 2) // 2)
    if (np.diff(bucket) < 0).any():
        # Few buckets fit 16 bits, for which a stable sort is a radix sort: linear, also for millions of points.
        narrow = bucket.astype(np.uint16) if limit < 1 << 16 else bucket
        order = np.argsort(narrow, kind="stable")
        known, bucket = known[order], bucket[order]
    values = ys[known]
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    sizes = np.diff(np.append(starts, len(bucket)))
    kept = [ends]
    for extreme in (np.minimum, np.maximum):
        at = np.flatnonzero(values == np.repeat(extreme.reduceat(values, starts), sizes))
        kept.append(known[at[np.flatnonzero(np.diff(bucket[at], prepend=-1))]])
    return np.unique(np.concatenate(kept)).astype(np.int64)


def _buckets(x: npt.NDArray[np.float64], count: int) -> Ints:
    """Which of ``count`` equal parts of its range each value lies in."""
    low, width = x.min(), x.max() - x.min()
    if not width > 0:
        return np.zeros(len(x), dtype=np.int64)
    place = ((x - low) / width * count).astype(np.int64)
    return np.asarray(np.clip(place, 0, count - 1), dtype=np.int64)
