"""Who waited for what: one row a request, its phases as bars, by order of arrival."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdbench.measure.latency import Floats, Ints
from pdbench.measure.lifecycles import column, token_stamps
from pdbench.units import NS_PER_S
from pdbench.views.devices import name_of, of_pair

PHASES = ("queue", "prefill", "wait", "transfer", "decode")


@dataclass(frozen=True, slots=True)
class Bar:
    """One phase of one request. ``device``: where it ran, "" for waiting. Seconds since the run's first due instant
    (since its first arrival, where the client's plan is not in the table)."""

    request: str
    device: str
    phase: str
    start_s: float
    end_s: float


def gantt(
    lifecycles: pd.DataFrame, pair: int, limit: int = 60, *, devices: Mapping[int, str] | None = None
) -> list[Bar]:
    """The phases of at most ``limit`` requests of one run (``chosen`` says which), by arrival, each in order of time.

    ``queue``: until its prefill begins; ``prefill``; ``wait``: for room in the link's buffer, and for a place in the
    decode batch; ``transfer``; ``decode``: until its last token. A phase that a request never came to is not there.
    ``devices``: worker to device, as ``devices.device_names`` finds it.
    """
    here = of_pair(lifecycles, pair)
    rows, _ = chosen(lifecycles, pair, limit)
    if not len(rows):
        return []
    due = column(here, "scheduled_ns")
    due = column(here, "arrive_ns") if np.isnan(due).all() else due
    t0 = float(np.nanmin(due))
    kept = here.iloc[rows]
    names = dict(devices or {})
    bars = []
    ids = kept["request_id"].to_numpy(dtype=object)
    prefiller, decoder = column(kept, "prefill_worker"), column(kept, "decode_worker")
    where = [(name_of(p, names), name_of(d, names)) for p, d in zip(prefiller, decoder, strict=True)]
    for row, phases in enumerate(phases_of(kept)):
        for phase, start, end in phases:
            device = {"prefill": where[row][0], "decode": where[row][1]}.get(phase, "")
            bars.append(Bar(str(ids[row]), device, phase, (start - t0) / NS_PER_S, (end - t0) / NS_PER_S))
    return bars


def chosen(lifecycles: pd.DataFrame, pair: int, limit: int = 60) -> tuple[Ints, str]:
    """Rows of the run that are shown, by arrival, and which those are in words. Where there are too many: requests
    that arrived around the one that waited longest for its first token. Warm-up is left out where it is known."""
    here = of_pair(lifecycles, pair)
    if not len(here):
        return np.zeros(0, dtype=np.int64), "the server tells nothing about its requests"
    arrived = column(here, "arrive_ns")
    known = ~np.isnan(arrived)
    if "warmup" in here:
        known &= ~here["warmup"].to_numpy(dtype=bool)
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(arrived[rows], kind="stable")]
    if len(rows) <= limit:
        return rows.astype(np.int64), f"all {len(rows)} requests of the run"
    waited = first_token(here)[rows] - arrived[rows]
    if np.isnan(waited).all():
        return rows[:limit].astype(np.int64), f"the first {limit} of {len(rows)} requests"
    worst = int(np.nanargmax(waited))
    begin = min(max(0, worst - limit // 2), len(rows) - limit)
    text = f"{limit} of {len(rows)} requests: those around the longest wait for a first token"
    return rows[begin : begin + limit].astype(np.int64), text


def first_token(lifecycles: pd.DataFrame) -> Floats:
    """When the server emitted each request's first token; the end of its prefill where it keeps no token stamps."""
    first = column(lifecycles, "prefill_end_ns").copy()
    stamps = token_stamps(lifecycles)
    begins = stamps.number == 0
    first[stamps.row[begins]] = stamps.t_ns[begins]
    return first


def phases_of(lifecycles: pd.DataFrame) -> list[list[tuple[str, float, float]]]:
    """``(phase, start_ns, end_ns)`` of every request, in order of time; phases of no length are left out."""
    names = ("arrive", "prefill_start", "prefill_end", "transfer_start", "transfer_end", "decode_admit", "end")
    stamps = {name: column(lifecycles, f"{name}_ns") for name in names}
    found = []
    for row in range(len(lifecycles)):
        arrive, begun, done, pushed, crossed, admitted, ended = (float(stamps[name][row]) for name in names)
        head = [("queue", arrive, begun), ("prefill", begun, _or(done, ended))]
        if math.isnan(begun):
            edges = [("queue", arrive, ended)]
        elif math.isnan(pushed) and math.isnan(crossed):  # no hand-off: it decodes where its prompt ended
            edges = [*head, ("wait", done, admitted), ("decode", _or(admitted, done), ended)]
        elif math.isnan(crossed):  # it broke on the way
            edges = [*head, ("wait", done, pushed), ("transfer", pushed, ended)]
        else:
            arrived = [("wait", crossed, admitted), ("decode", admitted, ended)]
            edges = [*head, ("wait", done, pushed), ("transfer", pushed, crossed), *arrived]
        found.append([(phase, start, end) for phase, start, end in edges if end > start])
    return found


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value
