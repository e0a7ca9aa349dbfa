"""Where the time to the second token goes: queues, prefill, the hand-off and its parts.

The first token of a disaggregated request says nothing about the hand-off: the prefill worker emits it. The
*second* comes from the decode worker, after the KV cache has crossed, so the time to it (TTST) is the figure
that compares a disaggregated arm with a colocated one, whoever emits token 1. Here it is taken apart::

    scheduled ─to_server─► arrive ─prefill_queue─► prefill start ─prefill─► token 1 ─staging_wait─► transfer start
      ─transfer─► transfer end ─decode_queue─► decode admit ─first_decode_step─► token 2 ─to_client─► received

The parts of a request add up to its TTST, and the four in the middle (``staging_wait`` to
``first_decode_step``) to the server's gap between its first two tokens. A colocated request has no hand-off:
those three parts are absent, and its first decode step begins where its prompt ended.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from pdbench.measure.latency import KEYS, Floats, floats, percentile, request_metrics
from pdbench.measure.lifecycles import column, matched, token_stamps
from pdbench.units import ms

PARTS = (
    "to_server", "prefill_queue", "prefill", "staging_wait", "transfer", "decode_queue", "first_decode_step",
    "to_client",
)  # fmt: skip
HANDOFF_PARTS = ("staging_wait", "transfer", "decode_queue")
MIB = 1 << 20

_MOST_POINTS = 1000
"""Theil-Sen looks at every pair of points: 1,000 are half a million pairs, more gain nothing."""


def handoff_parts(server: pd.DataFrame, requests: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """One row a measured request that completed and that the server knows, in the order of ``server``.

    ``server``: lifecycles with ``arm`` and ``pair``; ``requests``, ``tokens``: as ``records.to_frames`` makes
    them. Columns: the request's keys, ``request_id``, ``prompt_tokens``, ``kv_bytes``, ``handed_off``, and in
    float ns ``ttst_ns``, ``gap_ns`` (the client's), ``server_gap_ns`` and one ``<part>_ns`` each; NaN where a
    part does not apply (no second token, no hand-off). Warm-up requests are left out.
    """
    seen = request_metrics(requests, tokens)
    at = matched(server, requests)
    ok = np.zeros(len(server), dtype=bool)
    known = at >= 0
    ok[known] = (seen["completed"].to_numpy(dtype=bool) & ~seen["warmup"].to_numpy(dtype=bool))[at[known]]
    kept, at = server.loc[ok].reset_index(drop=True), at[ok]
    client = seen.iloc[at].reset_index(drop=True)
    scheduled = floats(requests["scheduled_ns"])[at]
    first, second = _two_tokens(kept)
    out = client[KEYS].copy()
    out["request_id"] = requests["request_id"].to_numpy()[at]
    out["prompt_tokens"] = column(kept, "prompt_tokens")
    out["kv_bytes"] = column(kept, "kv_bytes")
    crossed = column(kept, "transfer_end_ns")
    out["handed_off"] = ~np.isnan(crossed)
    ttst = floats(client["ttst_ns"])
    out["ttst_ns"] = ttst
    out["gap_ns"] = floats(client["handoff_gap_ns"])
    out["server_gap_ns"] = second - first
    parts = server_parts(kept) | {
        "to_server": column(kept, "arrive_ns") - scheduled,
        "to_client": scheduled + ttst - second,
    }
    for name in PARTS:
        out[f"{name}_ns"] = parts[name]
    return out


def server_parts(server: pd.DataFrame) -> dict[str, Floats]:
    """The parts that the server's stamps alone tell, in float ns, one value a row; NaN where a part does not apply."""
    first, second = _two_tokens(server)
    begun, arrived = column(server, "prefill_start_ns"), column(server, "arrive_ns")
    pushed, admitted = column(server, "transfer_start_ns"), column(server, "decode_admit_ns")
    crossed = column(server, "transfer_end_ns")
    return {
        "prefill_queue": begun - arrived,
        "prefill": first - begun,
        "staging_wait": pushed - first,
        "transfer": crossed - pushed,
        "decode_queue": admitted - crossed,
        "first_decode_step": second - np.where(np.isnan(crossed), first, admitted),
    }


def _two_tokens(server: pd.DataFrame) -> tuple[Floats, Floats]:
    """When the server emitted the first and the second token of each request; NaN where it did not."""
    first, second = np.full(len(server), np.nan), np.full(len(server), np.nan)
    stamps = token_stamps(server)
    for number, target in ((0, first), (1, second)):
        chosen = stamps.number == number
        target[stamps.row[chosen]] = stamps.t_ns[chosen]
    return first, second


def handoff_summary(parts: pd.DataFrame) -> dict[str, Any]:
    """What ``handoff_parts`` found over one arm, in ms, MiB and counts; ``{}`` when it found nothing.

    ``parts_ms`` holds P50 and P90 of each part that applies; P50s of parts do not add up to the P50 of the
    sum. ``per_mib`` is there when KV sizes differ enough to tell (see ``against_bytes``).
    """
    if not len(parts):
        return {}
    handed = parts["handed_off"].to_numpy(dtype=bool)
    found: dict[str, Any] = {
        "requests": len(parts),
        "transfers": int(handed.sum()),
        "bytes": int(np.nansum(floats(parts["kv_bytes"])[handed])),
        "ttst_ms": _spread(floats(parts["ttst_ns"])),
        "gap_ms": _spread(floats(parts["gap_ns"])),
        "parts_ms": {},
    }
    for name in PARTS:
        if spread := _spread(floats(parts[f"{name}_ns"])):
            found["parts_ms"][name] = spread
    if handed.any():
        size = floats(parts["kv_bytes"])[handed] / MIB
        found["kv_mib"] = {f"p{q}": round(percentile(size, q), 6) for q in (50, 90)}
        fits = {
            name: against_bytes(floats(parts["kv_bytes"])[handed], floats(parts[f"{name}_ns"])[handed])
            for name in ("transfer", "server_gap")
        }
        if known := {name: fit for name, fit in fits.items() if fit}:
            found["per_mib"] = known
    return {key: value for key, value in found.items() if value != {}}


def against_bytes(kv_bytes: Floats, took_ns: Floats) -> dict[str, float]:
    """``{"ms_per_mib", "low", "high", "intercept_ms", "points"}`` of the Theil-Sen line through (bytes, time).

    The median of the slopes over all pairs of points is not moved by the few transfers that waited for a
    step to end (Sen 1968, *J. Am. Stat. Assoc.* 63:1379); ``low`` and ``high`` are its 95 % interval, the
    intercept the median of what the slope leaves. Points beyond 1,000 are thinned evenly in order of size.
    ``{}`` with fewer than 3 points or with one size only: a line needs two.
    """
    known = np.isfinite(kv_bytes) & np.isfinite(took_ns)
    x, y = kv_bytes[known] / MIB, took_ns[known] / 1e6
    if len(x) < 3 or x.min() == x.max():
        return {}
    order = np.argsort(x, kind="stable")
    if len(x) > _MOST_POINTS:
        order = order[np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(np.int64)]
    x, y = x[order], y[order]
    from scipy import stats  # half a second to import, and only some runs hand over

    line = stats.theilslopes(y, x, alpha=0.95)
    fit = {"ms_per_mib": float(line.slope), "low": float(line.low_slope), "high": float(line.high_slope)}
    fit["intercept_ms"] = float(np.median(y - line.slope * x))
    return {key: round(value, 6) for key, value in fit.items()} | {"points": len(x)}


def _spread(values_ns: Floats) -> dict[str, float]:
    found = {f"p{q}": percentile(values_ns, q) for q in (50, 90)}
    return {key: round(ms(value), 6) for key, value in found.items() if not math.isnan(value)}
