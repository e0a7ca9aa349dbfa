"""What a prompt does to the streams beside it: every decode gap against the prompt tokens inside it.

If a step between two tokens of a stream carried prompt tokens, the stream waited for somebody else's prompt. The
**excess** of a gap is what it has over the undisturbed gap: the arm's median gap without a prompt token of its
own worker in it. From these

    decode stall per 1k co-arriving prefill tokens = sum(excess of disturbed gaps) / sum(their prompt tokens)

A prompt delays every stream on its worker, and each such gap counts with the tokens it saw: the figure is what
*one* stream loses. An arm that separates the phases has no prompt token on its decode workers and a figure of
0; what its streams feel of prompts on *other* workers (memory bandwidth, a shared host) is measured too, as
``elsewhere``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pdbench.measure.blame import prompt_blame
from pdbench.measure.gaps import decode_gaps
from pdbench.measure.latency import Floats, floats, percentile
from pdbench.measure.lifecycles import RUN, Flags, column

STALL_FACTOR = 2.0
"""A gap is a stall from this multiple of the undisturbed gap on, where no threshold is given."""

_SHOWN = 5


def interference(
    server: pd.DataFrame,
    steps: pd.DataFrame,
    requests: pd.DataFrame | None = None,
    *,
    stall_ns: float | None = None,
    shown: int = _SHOWN,
) -> dict[str, Any]:
    """The account of one arm, of one run or of several pooled; ``{}`` without decode gaps or without a step log.

    ``server``, ``steps``: lifecycles and step log with ``arm`` and ``pair``; ``requests`` tells warm-up from
    measured (warm-up streams are left out, warm-up prompts still disturb). ``stall_ns``: from which gap on a
    stream is said to stall, twice the undisturbed gap if not given. Times in ms, shares in [0, 1].

    ``stall_ms_per_1k_tokens`` is 0 where no prompt shared a worker with a stream. It and all that needs an
    undisturbed gap are absent where *every* gap was disturbed. ``stall_prefill_share``: how much of the time
    lost in stalls (beyond the undisturbed gap) had a prompt in it; absent where there is no stall.
    """
    gaps = decode_gaps(server, steps, requests)
    if not len(gaps) or not len(steps):
        return {}
    length, tokens = floats(gaps["gap_ns"]), floats(gaps["prefill_tokens"])
    disturbed = tokens > 0
    account: dict[str, Any] = {
        "gaps": len(gaps),
        "disturbed_share": round(float(disturbed.mean()), 6),
        "prefill_tokens": int(tokens.sum()),
    }
    if disturbed.all():
        return account
    base = float(np.median(length[~disturbed]))
    excess = length - base
    account["undisturbed_gap_ms"] = _ms(base)
    account["stall_ms_per_1k_tokens"] = _per_1k(excess[disturbed], tokens[disturbed])
    if disturbed.any():
        account["disturbed_gap_ms"] = {f"p{q}": _ms(percentile(length[disturbed], q)) for q in (50, 90)}
    if beside := _elsewhere(gaps, disturbed):
        account["elsewhere"] = beside
    limit = STALL_FACTOR * base if stall_ns is None else stall_ns
    stalled = length > limit
    account |= _stalls(limit, stalled, disturbed, np.maximum(excess, 0.0))
    blame = prompt_blame(server, steps, gaps, np.where(disturbed, excess, 0.0))
    account["worst_prompts"] = _worst_prompts(server, blame, shown)
    account["worst_stalls"] = _worst_stalls(server, gaps, stalled, base, shown)
    return account


def _per_1k(excess_ns: Floats, tokens: Floats) -> float:
    """ns a token is 1e-3 ms a thousand tokens."""
    return round(float(excess_ns.sum() / tokens.sum() / 1e3), 6) if len(tokens) else 0.0


def _elsewhere(gaps: pd.DataFrame, disturbed: Flags) -> dict[str, float]:
    """The same figure for prompts on other workers, among the gaps that no prompt of their own disturbs."""
    tokens, length = floats(gaps["elsewhere_tokens"]), floats(gaps["gap_ns"])
    beside, quiet = ~disturbed & (tokens > 0), ~disturbed & (tokens <= 0)
    if not beside.any() or not quiet.any():
        return {}
    excess = length[beside] - float(np.median(length[quiet]))
    return {
        "gaps_share": round(float(beside.mean()), 6),
        "stall_ms_per_1k_tokens": _per_1k(excess, tokens[beside]),
    }


def _stalls(limit_ns: float, stalled: Flags, disturbed: Flags, lost_ns: Floats) -> dict[str, Any]:
    """How many stalls, how long, and the share of that time that has a prompt in it."""
    total = float(lost_ns[stalled].sum())
    found = {"stall_threshold_ms": _ms(limit_ns), "stalls": int(stalled.sum()), "stall_ms": _ms(total)}
    if total > 0:
        found["stall_prefill_share"] = round(float(lost_ns[stalled & disturbed].sum()) / total, 6)
    return found


def _worst_prompts(server: pd.DataFrame, blame: Floats, shown: int) -> list[dict[str, Any]]:
    """The prompts that cost other streams most, worst first."""
    tokens = column(server, "prompt_tokens")
    return [
        {"request_id": str(server["request_id"].iloc[i]), "prompt_tokens": int(tokens[i]), "cost_ms": _ms(blame[i])}
        for i in np.argsort(-blame, kind="stable")[:shown]
        if blame[i] > 0
    ]


def _worst_stalls(
    server: pd.DataFrame, gaps: pd.DataFrame, stalled: Flags, base_ns: float, shown: int
) -> list[dict[str, Any]]:
    """The longest stalls, each with the prompts that its worker ran inside it."""
    order = np.argsort(-np.where(stalled, floats(gaps["gap_ns"]), -1.0), kind="stable")
    return [
        {
            "request_id": str(gap["request_id"]),
            "token": int(gap["token"]),
            "gap_ms": _ms(gap["gap_ns"]),
            "excess_ms": _ms(gap["gap_ns"] - base_ns),
            "prefill_tokens": int(gap["prefill_tokens"]),
            "prompts": prompts_inside(server, gap),
        }
        for _, gap in gaps.iloc[order[: min(shown, int(stalled.sum()))]].iterrows()
    ]


def prompts_inside(server: pd.DataFrame, gap: pd.Series[Any]) -> list[str]:
    """Ids of the prompts whose prefill, on the gap's worker and in its run, overlaps the gap."""
    inside = column(server, "prefill_worker") == float(gap["worker"])
    inside &= column(server, "prefill_start_ns") < float(gap["end_ns"])
    inside &= column(server, "prefill_end_ns") > float(gap["start_ns"])
    for key in RUN:
        inside &= (server[key] == gap[key]).to_numpy(dtype=bool)
    return [str(name) for name in server["request_id"].to_numpy()[inside]]


def _ms(ns: float) -> float:
    return round(float(ns) / 1e6, 6)
