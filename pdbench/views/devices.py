"""Which device a worker ran on, and when each device was prefilling, from a server's step log.

A worker of a real pdserve names its device in every step; on the virtual clock there are only workers, and "worker 0"
stands in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdbench.measure.latency import Floats, floats
from pdbench.measure.lifecycles import column
from pdbench.units import NS_PER_S


def device_names(steps: pd.DataFrame) -> dict[int, str]:
    """The device of each worker that took a step."""
    if not len(steps):
        return {}
    workers = column(steps, "worker")
    known = ~np.isnan(workers)
    named = steps["device"].to_numpy(dtype=object) if "device" in steps else np.full(len(steps), None, dtype=object)
    numbers, first = np.unique(workers[known].astype(np.int64), return_index=True)
    found = named[known][first]
    return {int(w): d if isinstance(d, str) and d else f"worker {w}" for w, d in zip(numbers, found, strict=True)}


def name_of(worker: float, names: dict[int, str]) -> str:
    """The device's name, else the worker's number; "" where nobody knows either."""
    if np.isnan(worker):
        return ""
    return names.get(int(worker), f"worker {int(worker)}")


def with_device(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps with a ``device`` column, made up from ``worker`` where the server tells none."""
    names = device_names(steps)
    workers, place = np.unique(column(steps, "worker"), return_inverse=True)
    return steps.assign(device=np.array([name_of(worker, names) for worker in workers], dtype=object)[place])


def of_pair(table: pd.DataFrame, pair: int) -> pd.DataFrame:
    """The rows of one run."""
    return table.loc[column(table, "pair") == pair] if len(table) else table


@dataclass(frozen=True, slots=True)
class Spans:
    """When a device was prefilling, in seconds, in order and apart; ``tokens``: prompt tokens run in each."""

    start_s: Floats
    end_s: Floats
    tokens: Floats

    def __len__(self) -> int:
        return len(self.start_s)


def prefill_spans(steps: pd.DataFrame, t0_ns: int, *, near_s: float = 0.0) -> dict[str, Spans]:
    """By device, its steps with prompt tokens (mixed steps among them) in seconds since ``t0_ns``; steps that touch, or
    lie nearer than ``near_s``, are one span."""
    if not len(steps):
        return {}
    named = with_device(steps)
    named = named.loc[column(named, "prefill_tokens") > 0]
    found = {}
    for device, rows in named.groupby("device", sort=True):
        order = np.argsort(floats(rows["start_ns"]), kind="stable")
        start = (floats(rows["start_ns"])[order] - t0_ns) / NS_PER_S
        end = (floats(rows["end_ns"])[order] - t0_ns) / NS_PER_S
        found[str(device)] = _joined(start, end, floats(rows["prefill_tokens"])[order], near_s)
    return found


def _joined(start: Floats, end: Floats, tokens: Floats, near_s: float) -> Spans:
    reached = np.maximum.accumulate(end)
    first = np.concatenate([[True], start[1:] > reached[:-1] + near_s])
    begins = np.flatnonzero(first)
    return Spans(start[first], np.maximum.reduceat(end, begins), np.add.reduceat(tokens, begins))
