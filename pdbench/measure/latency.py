"""From raw stamps to latencies: one row a request, every gap raw.

Pure functions of the two tables that ``records.to_frames`` makes. A request that did not complete has every
latency = +inf and is never dropped; NaN means that a metric does not apply (TPOT of a one-token answer).
The formulas and how other tools differ from them are in docs/metrics.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KEYS = ["arm", "pair", "index"]


def percentile(values: npt.ArrayLike, q: float) -> float:
    """Nearest-rank percentile: the smallest value that at least ``q`` % of the values do not exceed.

    NaN (not applicable) is left out, +inf counts; NaN comes back when nothing is left. ``q`` in (0, 100].
    """
    if not 0 < q <= 100:
        raise ValueError(f"q must be in (0, 100], got {q:g}")
    known = np.asarray(values, dtype=np.float64).ravel()
    known = np.sort(known[~np.isnan(known)])
    if not len(known):
        return math.nan
    # 99.9 % of 1000 is 999.0000000000001 in floats: round before the ceiling.
    rank = math.ceil(round(q * len(known) / 100, 9))
    return float(known[max(rank, 1) - 1])


def measured(requests: pd.DataFrame, tokens: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables without warm-up requests."""
    kept = requests.loc[~requests["warmup"].to_numpy(dtype=bool)]
    rows = _rows_of(tokens, kept)
    return kept.reset_index(drop=True), tokens.loc[rows >= 0].reset_index(drop=True)


def gaps_ns(tokens: pd.DataFrame) -> Floats:
    """Every raw gap between consecutive token-bearing chunks of one request, pooled. Never smoothed."""
    return _gaps(tokens)[1]


def _gaps(tokens: pd.DataFrame) -> tuple[Ints, Floats]:
    """(request code, gap) of every gap, in order of request."""
    codes, order, starts, _ = _groups(tokens)
    times = tokens["t_ns"].to_numpy(dtype=np.int64)[order]
    inside = np.ones(len(times), dtype=bool)
    inside[starts] = False
    gap = np.diff(times, prepend=0)
    return codes[inside], gap[inside].astype(np.float64)


def _groups(tokens: pd.DataFrame) -> tuple[Ints, Ints, Ints, Ints]:
    """Chunk rows put in order of request, arrival order kept inside: codes, order, start and size of each."""
    keyed = tokens.groupby(KEYS, sort=False, observed=True)
    codes: Ints = np.asarray(keyed.ngroup(), dtype=np.int64)
    order: Ints = np.argsort(codes, kind="stable").astype(np.int64)
    sizes: Ints = np.bincount(codes).astype(np.int64)
    starts: Ints = np.cumsum(sizes) - sizes
    return np.asarray(codes[order]), order, starts, sizes


def _rows_of(tokens: pd.DataFrame, requests: pd.DataFrame) -> Ints:
    """For each chunk its row in ``requests``, -1 where there is none."""
    index = pd.MultiIndex.from_frame(requests[KEYS])
    if not index.is_unique:
        raise ValueError("a request appears twice in the table")
    if not len(index) or not len(tokens):
        return np.full(len(tokens), -1, dtype=np.int64)
    return index.get_indexer(pd.MultiIndex.from_frame(tokens[KEYS])).astype(np.int64)


def request_metrics(requests: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """One row a request, in the order of ``requests``: its keys, ``warmup``, ``completed``, ``n_tokens``
    and, in float nanoseconds, ``ttft_ns``, ``service_ttft_ns``, ``tpot_ns``, ``worst_gap_ns``, ``ttst_ns``,
    ``handoff_gap_ns``, ``e2e_ns``; also ``tbt_cv`` (jitter). +inf: not completed. NaN: does not apply.
    """
    n = len(requests)
    first, second, last, n_first, counted, worst, cv = _chunk_facts(requests, tokens)
    completed = (requests["status"].to_numpy() == "ok") & ~np.isnan(first)
    scheduled = floats(requests["scheduled_ns"])
    reported = floats(requests["output_tokens"])
    n_tokens = np.where(np.isnan(reported), counted, reported)
    spread = n_tokens - n_first
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where((spread > 0) & ~np.isnan(second), (last - first) / spread, np.nan)
    columns = {
        "ttft_ns": first - scheduled,
        "service_ttft_ns": first - floats(requests["sent_ns"]),
        "tpot_ns": tpot,
        "worst_gap_ns": worst,
        "ttst_ns": second - scheduled,
        "handoff_gap_ns": second - first,
        "e2e_ns": last - scheduled,
    }
    out = requests[[*KEYS, "warmup", "status"]].reset_index(drop=True)
    out["completed"] = completed
    out["n_tokens"] = n_tokens
    for name, values in columns.items():
        out[name] = np.where(completed, values, np.inf) if n else np.zeros(0)
    out["tbt_cv"] = cv
    return out


def floats(column: pd.Series[Any]) -> Floats:
    """A column as float64, NaN where a value is absent."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _chunk_facts(requests: pd.DataFrame, tokens: pd.DataFrame) -> tuple[Floats, ...]:
    """Per request: time of first, second and last chunk, tokens in the first, tokens in all, worst gap, CV
    of the gaps. NaN where there is no such chunk. Monotonic stamps fit float64 exactly up to 104 days of
    uptime."""
    n = len(requests)
    first, second, last, n_first, worst, cv = (np.full(n, np.nan) for _ in range(6))
    counted = np.zeros(n)
    rows = _rows_of(tokens, requests)
    known = tokens.loc[rows >= 0]
    _, order, starts, sizes = _groups(known)
    if not len(starts):
        return first, second, last, n_first, counted, worst, cv
    times = known["t_ns"].to_numpy(dtype=np.int64)[order]
    counts = known["n_tokens"].to_numpy(dtype=np.int64)[order]
    at = rows[rows >= 0][order][starts]
    first[at], last[at] = times[starts], times[starts + sizes - 1]
    n_first[at] = counts[starts]
    counted[at] = np.add.reduceat(counts, starts)
    more = sizes > 1
    second[at[more]] = times[starts[more] + 1]
    codes, gaps = _gaps(known)
    by_request = pd.Series(gaps).groupby(codes)
    worst[at[more]] = by_request.max().to_numpy()
    spread = by_request.std(ddof=0).to_numpy()
    mean = by_request.mean().to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        cv[at[more]] = np.where((sizes[more] > 2) & (mean > 0), spread / mean, np.nan)
    return first, second, last, n_first, counted, worst, cv
