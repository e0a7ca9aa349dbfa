"""How much a stream's next token is late for the prompt tokens that ran meanwhile: points, and a median by size.

``measure.interference`` gives one arm one figure; here are the gaps behind it, each against the prompt tokens its own
worker ran inside it (``tokens``). What other workers ran meanwhile is left to the figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdbench.measure.gaps import decode_gaps
from pdbench.measure.latency import Floats, floats
from pdbench.measure.lifecycles import column
from pdbench.units import NS_PER_MS
from pdbench.views.thin import thin

LIMIT = 2000
_BINS = 12
MOST_GAPS = 200_000
"""More gaps than this are taken from every n-th request: a median of so many does not move."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The gaps with ``low <= prompt tokens <= high``: how many, and their median."""

    low: float
    high: float
    count: int
    median_ms: float


@dataclass(frozen=True, slots=True)
class Interference:
    """One arm. Points: prompt tokens its own worker ran inside a gap against the gap; thinned, extremes kept. ``bins``:
    medians by size, the first of them without prompt tokens. ``gaps``: how many the bins rest on. ``note``: what is
    missing or left out."""

    tokens: Floats
    gap_ms: Floats
    bins: tuple[Bin, ...]
    gaps: int
    disturbed: int
    note: str = ""


_NONE = np.zeros(0)


def interference(lifecycles: pd.DataFrame, steps: pd.DataFrame, *, limit: int = LIMIT) -> Interference:
    """Of one arm, all its runs pooled; warm-up streams left out where they are known (their prompts still disturb)."""
    if not len(lifecycles) or not len(steps):
        note = "no server data: only pdserve tells its steps"
        return Interference(_NONE, _NONE, (), 0, 0, note)
    kept = lifecycles
    if "warmup" in kept:
        kept = kept.loc[~kept["warmup"].to_numpy(dtype=bool)]
    every = max(1, int(np.nansum(column(kept, "output_tokens"))) // MOST_GAPS)
    gaps = decode_gaps(kept.iloc[::every].reset_index(drop=True), steps)
    gap = floats(gaps["gap_ns"]) / NS_PER_MS
    own = floats(gaps["prefill_tokens"])
    shown = thin(own, gap, limit)
    disturbed = int((own > 0).sum())
    notes = [] if every == 1 else [f"every {every}th request is looked at"]
    if not len(gap):
        notes.append("no stream has two decode tokens")
    elif not disturbed:
        notes.append("no prompt token ran on a worker while it decoded: nothing can interfere there")
    return Interference(
        tokens=own[shown],
        gap_ms=gap[shown],
        bins=_bins(own, gap),
        gaps=len(gap),
        disturbed=disturbed,
        note="; ".join(notes),
    )


def _bins(tokens: Floats, gap_ms: Floats) -> tuple[Bin, ...]:
    """One bin without prompt tokens, then a bin a size; where there are more than twelve sizes, twelve with about as
    many gaps each."""
    found = []
    if (none := tokens <= 0).any():
        found.append(Bin(0.0, 0.0, int(none.sum()), float(np.median(gap_ms[none]))))
    tokens, gap_ms = tokens[~none], gap_ms[~none]
    if not len(tokens):
        return tuple(found)
    edges = np.unique(tokens)
    if len(edges) > _BINS:
        edges = np.unique(np.quantile(tokens, np.linspace(0, 1, _BINS + 1))[:-1])
    place = np.searchsorted(edges, tokens, side="right") - 1
    for number in np.unique(place):
        inside = place == number
        low, high = float(tokens[inside].min()), float(tokens[inside].max())
        found.append(Bin(low, high, int(inside.sum()), float(np.median(gap_ms[inside]))))
    return tuple(found)
