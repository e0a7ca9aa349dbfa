"""Which prompts cost the streams beside them how much: lost decode time, shared out to who ran meanwhile.

A gap's loss is spread evenly over the prompt tokens inside it; what so falls on a step goes to the prompts that
ran in it, by prompt length over the tokens run in the prompt's time. That is exact where one prompt runs at a
time or whole prompts share a step, and a fair guess where the chunks of several prompts alternate. Nothing is
lost or counted twice: the blame adds up to the loss.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pdbench.measure.gaps import Lane
from pdbench.measure.latency import Floats, Ints, floats
from pdbench.measure.lifecycles import by_worker, column


def prompt_blame(server: pd.DataFrame, steps: pd.DataFrame, gaps: pd.DataFrame, lost_ns: Floats) -> Floats:
    """ns of decode time that each prompt cost others, one value a row of ``server``.

    ``gaps`` as ``decode_gaps`` makes them, ``lost_ns`` one value a gap. A gap without a prompt token of its own
    worker is nobody's fault. Difference arrays and running sums: O(n log n).
    """
    blame = np.zeros(len(server))
    of_gap, of_prompt = by_worker(gaps, "worker"), by_worker(server, "prefill_worker")
    shared = floats(gaps["prefill_tokens"]) > 0
    done = ~np.isnan(column(server, "prefill_end_ns"))
    for key, rows in by_worker(steps, "worker").items():
        if key not in of_gap or key not in of_prompt:
            continue
        mine, prompts = of_gap[key], of_prompt[key]
        mine, prompts = mine[shared[mine]], prompts[done[prompts]]
        blame[prompts] = _in_lane(Lane(steps.iloc[rows]), gaps.iloc[mine], lost_ns[mine], server.iloc[prompts])
    return blame


def _in_lane(lane: Lane, gaps: pd.DataFrame, lost_ns: Floats, prompts: pd.DataFrame) -> Floats:
    """``prompt_blame`` among the gaps and prompts of one worker in one run."""
    per_token = lost_ns / floats(gaps["prefill_tokens"])
    inside = lane.after(floats(gaps["start_ns"])), lane.after(floats(gaps["end_ns"]))
    lost = _ranged(*inside, per_token, len(lane)) * lane.tokens
    # A prompt's steps: from the one that starts with it to the one that ends with it.
    first = np.searchsorted(lane.start, floats(prompts["prefill_start_ns"]), side="left").astype(np.int64)
    last = np.maximum(lane.after(floats(prompts["prefill_end_ns"])), first)
    ran = lane.ran(first, last)
    density = np.divide(floats(prompts["prompt_tokens"]), ran, out=np.zeros(len(prompts)), where=ran > 0)
    weight = _ranged(first, last, density, len(lane))
    unit = np.divide(lost, weight, out=np.zeros(len(lane)), where=weight > 1e-9)
    running = np.concatenate([[0.0], np.cumsum(unit)])
    return np.asarray(density * (running[last] - running[first]), dtype=np.float64)


def _ranged(first: Ints, last: Ints, value: Floats, size: int) -> Floats:
    """``sum(value[i] for i with first[i] <= k < last[i])`` for every ``k < size``."""
    change = np.zeros(size + 1)
    np.add.at(change, first, value)
    np.add.at(change, last, -value)
    return np.asarray(np.cumsum(change)[:size], dtype=np.float64)
