"""The summary of one arm: one entry of ``arms`` in the document that ``--json`` prints.

Percentiles are nearest-rank over raw values, pooled over the requests of all runs given. Inference never
uses these pooled figures: it takes one value a run (``pdbench.stats.paired``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench.measure.attainment import attainment, meets_jointly, slo_met
from pdbench.measure.latency import Floats, floats, gaps_ns, measured, percentile, request_metrics
from pdbench.measure.slo import REQUEST_METRICS, Objective
from pdbench.measure.validity import Validity, dispatch_lag_ns, receive_lag_ns
from pdbench.units import NS_PER_S, ms

__all__ = [
    "attainment", "gaps_ns", "handoff_gap_ms", "lag_ms", "measured", "meets_jointly", "percentile",
    "request_metrics", "slo_met", "spread_ms", "summarise",
]  # fmt: skip

_SHOWN = (50.0, 90.0, 99.0)


def summarise(
    requests: pd.DataFrame,
    tokens: pd.DataFrame,
    objectives: Sequence[Objective],
    devices: int,
    *,
    simulated: bool = False,
    validity: Validity | None = None,
    client_lag_ms: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """One entry of the summary document's ``arms``, from one run or from all runs of one arm pooled.

    Milliseconds, shares and counts. ``None`` is +inf; a metric that applies to no request is absent. Warm-up
    is left out everywhere but in its own count. ``device_busy`` and ``handoff`` are the caller's to add.
    ``client_lag_ms`` is the event-loop probe's, shown where no kernel stamps were taken.
    """
    kept, chunks = measured(requests, tokens)
    derived = request_metrics(kept, chunks)
    gaps = gaps_ns(chunks)
    good = meets_jointly(derived, objectives)
    shares = {o: attainment(derived, gaps, o) for o in objectives}
    n, ok = len(derived), int(derived["completed"].sum())
    entry: dict[str, Any] = {"devices": devices, "simulated": simulated}
    if validity is not None:
        entry["validity"] = validity.document()
    counts = {"scheduled": n, "ok": ok, "failed": n - ok, "warmup": len(requests) - n}
    entry["requests"] = counts
    entry["statuses"] = {str(k): int(v) for k, v in sorted(kept["status"].value_counts().items())}
    entry.update(_latencies(derived, gaps))
    joint = {"joint": float(np.mean(good))} if n and objectives else {}
    entry["attainment"] = joint | {o.text: s for o, s in shares.items() if not math.isnan(s)}
    entry["slo_met"] = {o.text: slo_met(s, o) for o, s in shares.items()}
    entry["not_applicable"] = {o.text: int(derived[f"{o.metric}_ns"].isna().sum()) for o in objectives if o.per_request}
    entry["throughput"] = _throughput(kept, chunks, derived, int(good.sum()), devices)
    entry["jitter"] = _jitter(derived, gaps)
    if len(chunks):
        entry["tokens_per_chunk"] = round(float(chunks["n_tokens"].mean()), 4)
    dispatch, receive = dispatch_lag_ns(kept), receive_lag_ns(kept)
    if len(dispatch):
        entry["dispatch_lag_ms"] = lag_ms(dispatch)
    if len(receive):
        entry["client_lag_ms"] = lag_ms(receive)
    elif client_lag_ms is not None:
        entry["client_lag_ms"] = dict(client_lag_ms)
    return entry


def spread_ms(values_ns: npt.ArrayLike) -> dict[str, float | None]:
    """``{"p50", "p90", "p99"}`` in ms, ``None`` for +inf; empty when nothing applies."""
    found = {f"p{q:g}": percentile(values_ns, q) for q in _SHOWN}
    return {k: _ms(v) for k, v in found.items() if not math.isnan(v)}


def lag_ms(values_ns: npt.ArrayLike) -> dict[str, float | None]:
    """``{"p50", "p99", "max"}`` in ms."""
    return {"p50": _ms(percentile(values_ns, 50)), "p99": _ms(percentile(values_ns, 99)),
            "max": _ms(percentile(values_ns, 100))}  # fmt: skip


def handoff_gap_ms(requests: pd.DataFrame, tokens: pd.DataFrame) -> dict[str, float | None]:
    """The gap from first to second chunk of the requests that completed, for the entry's ``handoff``."""
    derived = request_metrics(*measured(requests, tokens))
    return spread_ms(derived.loc[derived["completed"], "handoff_gap_ns"])


def _ms(ns: float) -> float | None:
    return None if math.isinf(ns) else round(ms(ns), 6)


def _latencies(derived: pd.DataFrame, gaps: Floats) -> dict[str, dict[str, float | None]]:
    shown: dict[str, npt.ArrayLike] = {m: floats(derived[f"{m}_ns"]) for m in REQUEST_METRICS if m != "handoff_gap"}
    # No gap because every request failed is as bad as can be, not "does not apply".
    all_failed = len(derived) > 0 and not derived["completed"].any()
    shown["tbt"] = gaps if len(gaps) or not all_failed else np.array([np.inf])
    order = ("ttft", "service_ttft", "tpot", "tbt", "worst_gap", "e2e", "ttst")
    found = {f"{metric}_ms": spread_ms(shown[metric]) for metric in order}
    return {name: spread for name, spread in found.items() if spread}


def _throughput(
    kept: pd.DataFrame, chunks: pd.DataFrame, derived: pd.DataFrame, good: int, devices: int
) -> dict[str, float]:
    """Completed work over the measured window: from a run's first due time to its last end, summed over
    runs."""
    window_s = _window_ns(kept, chunks) / NS_PER_S
    if window_s <= 0:
        return {}
    done = derived["completed"].to_numpy(dtype=bool)
    prompts = floats(kept["prompt_tokens"])
    prompts = np.where(np.isnan(prompts), floats(kept["planned_prompt_tokens"]), prompts)
    figures = {
        "requests_per_s": int(done.sum()) / window_s,
        "input_tokens_per_s": float(prompts[done].sum()) / window_s,
        "output_tokens_per_s": float(derived.loc[done, "n_tokens"].sum()) / window_s,
        "good_requests_per_s": good / window_s,
        "good_requests_per_s_per_device": good / window_s / devices,
    }
    return {name: round(value, 6) for name, value in figures.items()}


def _window_ns(kept: pd.DataFrame, chunks: pd.DataFrame) -> int:
    """The measured windows' total length; a request without an end (never offered) does not stretch it."""
    runs = ["arm", "pair"]
    start = kept.groupby(runs)["scheduled_ns"].min()
    ends = [kept.groupby(runs)["end_ns"].max(), chunks.groupby(runs)["t_ns"].max()]
    end = pd.concat([e.dropna() for e in ends]).astype("int64").groupby(level=runs).max()
    return int((end - start).dropna().clip(lower=0).sum())


def _jitter(derived: pd.DataFrame, gaps: Floats) -> dict[str, float]:
    """Unevenness of the stream: mean coefficient of variation of a request's gaps, and pooled P99 / P50."""
    found: dict[str, float] = {}
    cv = floats(derived["tbt_cv"])
    if np.any(~np.isnan(cv)):
        found["tbt_cv"] = round(float(np.nanmean(cv)), 6)
    middle = percentile(gaps, 50)
    if middle > 0:
        found["tbt_p99_over_p50"] = round(percentile(gaps, 99) / middle, 6)
    return found
