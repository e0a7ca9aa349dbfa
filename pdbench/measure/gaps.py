"""The gaps between the tokens of every stream, as the server stamped them, and the prompts run inside them.

A token leaves a worker at the end of a step. So the steps between two tokens of a stream are exactly those of
its worker that end after the first and not after the second, and what prompts they carried is known, not
guessed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pdbench.measure.latency import Floats, Ints, floats
from pdbench.measure.lifecycles import RUN, Flags, by_run, by_worker, column, matched, token_stamps


class Lane:
    """The steps of one worker in one run, in order of time; they never overlap."""

    def __init__(self, steps: pd.DataFrame) -> None:
        order = np.argsort(floats(steps["end_ns"]), kind="stable")
        self.start = floats(steps["start_ns"])[order]
        self.end = floats(steps["end_ns"])[order]
        self.tokens = floats(steps["prefill_tokens"])[order]
        self.total = np.concatenate([[0.0], np.cumsum(self.tokens)])

    def __len__(self) -> int:
        return len(self.end)

    def after(self, at: Floats) -> Ints:
        """How many steps have ended by ``at``: the place of the first step that ends later."""
        return np.searchsorted(self.end, at, side="right").astype(np.int64)

    def ran(self, first: Ints, last: Ints) -> Floats:
        """Prompt tokens of the steps ``first <= k < last``."""
        return np.asarray(self.total[last] - self.total[first], dtype=np.float64)

    def meanwhile(self, after: Floats, until: Floats) -> Floats:
        """Prompt tokens between two instants, each step's spread evenly over its duration."""
        times = np.column_stack([self.start, self.end]).ravel()
        done = np.column_stack([self.total[:-1], self.total[1:]]).ravel()
        return np.asarray(np.interp(until, times, done) - np.interp(after, times, done), dtype=np.float64)


def decode_gaps(server: pd.DataFrame, steps: pd.DataFrame, requests: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a decode gap, in order of request and token; warm-up requests (known from ``requests``) left out.

    ``server``, ``steps``: lifecycles and step log with ``arm`` and ``pair``. Columns: ``arm``, ``pair``, ``row``
    (in ``server``), ``request_id``, ``token`` (number of the later one, from 0), ``worker``, ``start_ns``,
    ``end_ns``, ``gap_ns``, ``prefill_tokens`` (run by the same worker inside the gap), ``elsewhere_tokens``
    (run meanwhile by the other workers of the run). The gap between tokens 1 and 2 of a handed-off request
    spans two workers; it belongs to ``measure.handoff``. O(n log n), times the workers of a run.
    """
    stamps = token_stamps(server)
    crossed = ~np.isnan(column(server, "transfer_end_ns"))
    left_out = _warmup(server, requests) if requests is not None else np.zeros(len(server), dtype=bool)
    decoded = (stamps.number > 0) & ~(crossed[stamps.row] & (stamps.number == 1)) & ~left_out[stamps.row]
    later = np.flatnonzero(decoded)
    row, start, end = stamps.row[later], stamps.t_ns[later - 1], stamps.t_ns[later]
    first, decoder = column(server, "prefill_worker"), column(server, "decode_worker")
    gaps = server[[*RUN, "request_id"]].iloc[row].reset_index(drop=True) if len(row) else _NONE.copy()
    gaps["row"] = row
    gaps["token"] = stamps.number[later]
    gaps["worker"] = np.where(np.isnan(decoder), first, decoder)[row]
    gaps["start_ns"], gaps["end_ns"] = start, end
    gaps["gap_ns"] = (end - start).astype(np.float64)
    gaps["prefill_tokens"], gaps["elsewhere_tokens"] = _tokens_inside(gaps, steps)
    return gaps


_NONE = pd.DataFrame({"arm": [], "pair": [], "request_id": []})


def _warmup(server: pd.DataFrame, requests: pd.DataFrame) -> Flags:
    at = matched(server, requests)
    flags = np.zeros(len(server), dtype=bool)
    flags[at >= 0] = requests["warmup"].to_numpy(dtype=bool)[at[at >= 0]]
    return flags


def _tokens_inside(gaps: pd.DataFrame, steps: pd.DataFrame) -> tuple[Floats, Floats]:
    """Prompt tokens that each gap's own worker ran in it, and that the other workers of its run did."""
    own, elsewhere = np.zeros(len(gaps)), np.zeros(len(gaps))
    start, end = floats(gaps["start_ns"]), floats(gaps["end_ns"])
    worker = floats(gaps["worker"])
    runs = by_run(gaps)
    for (arm, pair, number), rows in by_worker(steps, "worker").items():
        lane, inside = Lane(steps.iloc[rows]), runs.get((arm, pair))
        if inside is None:
            continue
        here = worker[inside] == number
        mine, others = inside[here], inside[~here]
        own[mine] = lane.ran(lane.after(start[mine]), lane.after(end[mine]))
        elsewhere[others] += lane.meanwhile(start[others], end[others])
    return own, elsewhere
