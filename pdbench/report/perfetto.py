"""A run as a trace for ui.perfetto.dev: what every device did, and every request's way through it.

Chrome's trace event JSON (the "Trace Event Format" document), which Perfetto and chrome://tracing open. A process is
one run of one arm, all begin at 0, so that arms lie beneath each other on one time axis:

- a track a worker, named by its device: every engine step, named prefill, decode or mixed;
- lanes of prompts, KV transfers and streams: a slice a request, joined by arrows prefill -> transfer -> decode;
- ``request``: the request as the client knows it, from the instant it was due, with its phases inside;
- counters: requests that wait for a prefill, are in hand-off, decode.

A large run is cut to its first requests, and ``otherData.notes`` says so: a browser takes some 100 MB of this.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pdbench import __version__
from pdbench.measure.latency import Floats, Ints
from pdbench.measure.lifecycles import column
from pdbench.stored import StoredRun
from pdbench.units import NS_PER_MS, NS_PER_S, NS_PER_US
from pdbench.views.devices import device_names, name_of, of_pair
from pdbench.views.gantt import phases_of
from pdbench.views.numbers import Numbers

Event = dict[str, Any]
REQUESTS = 5_000
STEPS = 100_000
_TINY_NS = 1_000.0
# Tracks stand in this order beneath a process.
_ORDER = {"steps": 0, "prompts": 1, "transfers": 2, "streams": 3}


def trace(run: StoredRun, *, limit: int = REQUESTS) -> dict[str, Any]:
    """The trace of at most ``limit`` requests of every arm, in order of arrival, and of the steps meanwhile (100,000 an
    arm at most)."""
    processes: list[_Process] = []
    tracks = itertools.count(1)
    notes = [str(note) for note in run.notes]
    for arm in run.arms:
        numbers, shown, steps_left = run.numbers(arm), 0, STEPS
        for pair in numbers.pairs:
            if shown >= limit or steps_left <= 0:
                break
            process = _Process(len(processes) + 1, f"{arm}, pair {pair + 1}", numbers.t0_ns(pair) or 0, tracks)
            mine = numbers.only(numbers.pair == pair)
            steps = of_pair(run.steps(arm), pair)
            kept, until = _first(steps, steps_left, process.t0_ns)
            if until is not None:
                notes.append(f"{arm}: the first {STEPS} steps, in pair {pair + 1} those of the first {until:.3g} s")
            names = device_names(steps)
            shown += _fill(process, mine, of_pair(run.lifecycles(arm), pair), kept, names, limit - shown)
            steps_left -= len(steps)
            processes.append(process)
        if shown < len(numbers):
            notes.append(f"{arm}: the first {shown} of {len(numbers)} requests")
    events = [event for process in processes for event in process.named()]
    events += sorted((event for process in processes for event in process.events), key=lambda event: event["ts"])
    return {
        "displayTimeUnit": "ms",
        "otherData": {
            "tool": f"pdbench {__version__}",
            "run": run.name,
            "sentence": str(run.document.get("sentence", "")),
            "notes": notes,
        },
        "traceEvents": events,
    }


def _first(steps: pd.DataFrame, limit: int, t0_ns: int) -> tuple[pd.DataFrame, float | None]:
    """The steps that began first, and where some are left out the second until which they are there. By time, since a
    table of several workers may hold one after the other."""
    if len(steps) <= limit:
        return steps, None
    start = column(steps, "start_ns")
    kept = np.argsort(start, kind="stable")[:limit]
    return steps.iloc[np.sort(kept)], max(0.0, float(start[kept[-1]]) - t0_ns) / NS_PER_S


@dataclass(slots=True)
class _Process:
    """One run of one arm: its events, and its tracks by (kind, whose, lane). No two processes share a track's number;
    ``own`` is that of what belongs to the whole process."""

    pid: int
    name: str
    t0_ns: int
    numbers: Iterator[int]
    own: int = field(init=False)
    events: list[Event] = field(default_factory=list)
    tracks: dict[tuple[int, str, int], tuple[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.own = next(self.numbers)

    def add(self, ph: str, name: str, at_ns: float, track: int | None = None, **more: Any) -> None:
        us = round(max(0.0, at_ns - self.t0_ns) / NS_PER_US, 3)
        tid = self.own if track is None else track
        self.events.append({"ph": ph, "pid": self.pid, "tid": tid, "ts": us, "name": name, **more})

    def slice(self, name: str, track: int, start_ns: float, end_ns: float, category: str, args: Event) -> None:
        length = round(max(end_ns - start_ns, 1.0) / NS_PER_US, 3)
        self.add("X", name, start_ns, track, dur=length, cat=category, args=args)

    def track(self, kind: str, name: str, lane: int = 0) -> int:
        key = (_ORDER[kind], name, lane)
        if key not in self.tracks:
            self.tracks[key] = next(self.numbers), f"{name} {lane}" if lane else name
        return self.tracks[key][0]

    def named(self) -> list[Event]:
        """The names of the process and its tracks, and the order they stand in."""
        head: Event = {"ph": "M", "pid": self.pid, "ts": 0}
        found = [
            {**head, "tid": self.own, "name": "process_name", "args": {"name": self.name}},
            {**head, "tid": self.own, "name": "process_sort_index", "args": {"sort_index": self.pid}},
        ]
        for place, (_, (tid, name)) in enumerate(sorted(self.tracks.items())):
            found.append({**head, "tid": tid, "name": "thread_name", "args": {"name": name}})
            found.append({**head, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": place}})
        return found


def _fill(
    process: _Process, numbers: Numbers, server: pd.DataFrame, steps: pd.DataFrame, names: dict[int, str], limit: int
) -> int:
    """All events of one run, of at most ``limit`` requests; how many requests there were. ``names``: of the devices, by
    worker."""
    order = np.argsort(numbers.scheduled_ns, kind="stable")[:limit]
    row_of = {name: row for row, name in enumerate(server["request_id"])} if "request_id" in server else {}
    rows = [row_of.get(numbers.request_id[one], -1) for one in order]
    phases = phases_of(server.iloc[[row for row in rows if row >= 0]])
    by_request = iter(phases)
    last = 0.0
    for one, row in zip(order, rows, strict=True):
        last = max(last, _request(process, numbers, int(one), next(by_request) if row >= 0 else None))
    if len(server):
        kept = server.iloc[[row for row in rows if row >= 0]]
        _lanes(process, kept, names)
        _counters(process, server, last if len(order) < len(numbers) else math.inf)
    _steps(process, steps, names, last if len(order) < len(numbers) else math.inf)
    return len(order)


# ---- requests


def _request(process: _Process, numbers: Numbers, one: int, phases: list[tuple[str, float, float]] | None) -> float:
    """The request as a nestable async slice with its phases inside; when it ended."""
    due = float(numbers.scheduled_ns[one])
    first = due + float(numbers.ttft_ms[one]) * NS_PER_MS
    last = due + float(numbers.e2e_ms[one]) * NS_PER_MS
    if phases is None:
        phases = [("waiting for the first token", due, first), ("streaming", first, last)]
        phases = [phase for phase in phases if math.isfinite(phase[2]) and phase[2] > phase[1]]
    ends = [value for value in (last, float(numbers.end_ns[one])) if math.isfinite(value)]
    begin = min([due, *(start for _, start, _ in phases)])
    end = max([begin, *ends, *(end for _, _, end in phases)])
    same: Event = {"cat": "request", "id": f"{process.pid}.{one}"}
    args: Event = {
        "index": int(numbers.index[one]), "id": str(numbers.request_id[one]), "status": str(numbers.status[one]),
        "warm-up": bool(numbers.warmup[one]), "TTFT ms": _number(numbers.ttft_ms[one]),
        "worst gap ms": _number(numbers.worst_gap_ms[one]),
    }  # fmt: skip
    process.add("b", "request", begin, args=args, **same)
    for phase, start, stop in phases:
        process.add("b", phase, start, **same)
        process.add("e", phase, stop, **same)
    if math.isfinite(first):
        process.add("n", "first token at the client", min(first, end), **same)
    process.add("e", "request", end, **same)
    return end


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _lanes(process: _Process, server: pd.DataFrame, names: dict[int, str]) -> None:
    """Prompts, transfers and streams as slices side by side, and the arrows from one to the next."""
    stamps = {
        name: column(server, f"{name}_ns")
        for name in ("prefill_start", "prefill_end", "transfer_start", "transfer_end", "decode_admit", "end")
    }
    decoding = np.where(np.isnan(stamps["decode_admit"]), stamps["prefill_end"], stamps["decode_admit"])
    ids = [str(name) for name in server["request_id"]]
    prompt, output = column(server, "prompt_tokens"), column(server, "output_tokens")
    size = column(server, "kv_bytes")
    prefiller, decoder = column(server, "prefill_worker"), column(server, "decode_worker")
    lanes = {
        "prompts": (stamps["prefill_start"], stamps["prefill_end"], prefiller, {"prompt tokens": prompt}),
        "transfers": (stamps["transfer_start"], stamps["transfer_end"], np.zeros(len(server)), {"bytes": size}),
        "streams": (decoding, stamps["end"], np.where(output > 1, decoder, np.nan), {"output tokens": output}),
    }
    places: dict[str, dict[int, tuple[int, float, float]]] = {}
    for kind, (start, end, worker, facts) in lanes.items():
        places[kind] = _laid(process, kind, start, end, worker, names)
        for row, (tid, begin, stop) in places[kind].items():
            args = {name: _count(values[row]) for name, values in facts.items()}
            process.slice(_SLICES[kind], tid, begin, stop, kind, {"request": ids[row], **args})
    for row in places["transfers"].keys() & places["prompts"].keys() & places["streams"].keys():
        _flow(process, f"{process.pid}.{row}", [places[kind][row] for kind in ("prompts", "transfers", "streams")])


_SLICES = {"prompts": "prefill", "transfers": "KV transfer", "streams": "decode"}


def _count(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None


def _laid(
    process: _Process, kind: str, start: Floats, end: Floats, worker: Floats, names: dict[int, str]
) -> dict[int, tuple[int, float, float]]:
    """``{row: (track, start, end)}``: each request in the first lane of its worker that is free."""
    found: dict[int, tuple[int, float, float]] = {}
    for one in np.unique(worker[~np.isnan(worker)]):
        rows = np.flatnonzero((worker == one) & (end >= start))
        whose = "" if kind == "transfers" else f"{name_of(float(one), names)} "
        for row, lane in zip(rows, lanes_of(start[rows], end[rows]), strict=True):
            tid = process.track(kind, f"{whose}{'KV transfers' if kind == 'transfers' else kind}", int(lane) + 1)
            found[int(row)] = (tid, float(start[row]), float(end[row]))
    return found


def lanes_of(start: Floats, end: Floats) -> Ints:
    """The fewest lanes in which intervals do not overlap: the number of the lane of each."""
    lane: Ints = np.zeros(len(start), dtype=np.int64)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for row in np.argsort(start, kind="stable"):
        while busy and busy[0][0] <= start[row]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane[row] = heapq.heappop(free) if free else len(busy)
        # A slice without length is drawn a nanosecond long.
        heapq.heappush(busy, (max(float(end[row]), float(start[row]) + 1), int(lane[row])))
    return lane


def _flow(process: _Process, name: str, slices: Sequence[tuple[int, float, float]]) -> None:
    """An arrow from the end of the prefill over the transfer to the beginning of the decode. A flow event belongs to
    the slice of its track around its instant, so each lies inside."""
    (first, begun, done), (middle, pushed, crossed), (last, admitted, ended) = slices
    same: Event = {"cat": "hand-off", "id": name}
    process.add("s", "hand-off", max(done - _TINY_NS, (begun + done) / 2), first, **same)
    process.add("t", "hand-off", (pushed + crossed) / 2, middle, **same)
    process.add("f", "hand-off", min(admitted + _TINY_NS, (admitted + ended) / 2), last, bp="e", **same)


# ---- the server


def _steps(process: _Process, steps: pd.DataFrame, names: dict[int, str], until_ns: float) -> None:
    """Every step on its worker's track; named by what it did."""
    if not len(steps):
        return
    start, end, worker = (column(steps, name) for name in ("start_ns", "end_ns", "worker"))
    kept = np.flatnonzero(~np.isnan(worker) & (end >= start) & (start <= until_ns))
    shared = len(set(names.values())) < len(names)
    track = {
        one: process.track("steps", f"{device} steps{f' (worker {one})' if shared else ''}")
        for one, device in names.items()
    }
    facts = {
        name.replace("_", " "): column(steps, name)
        for name in ("prefill_tokens", "decode_tokens", "sequences", "context_tokens")
        if name in steps
    }
    prefill, decode = column(steps, "prefill_tokens"), column(steps, "decode_tokens")
    for row in kept:
        kind = ("mixed" if decode[row] > 0 else "prefill") if prefill[row] > 0 else "decode"
        args = {name: _count(values[row]) for name, values in facts.items()}
        process.slice(kind, track[int(worker[row])], float(start[row]), float(end[row]), "step", args)


def _counters(process: _Process, server: pd.DataFrame, until_ns: float) -> None:
    """Requests that wait for a prefill, are in hand-off, decode; each change is an event."""
    names = ("arrive", "prefill_start", "prefill_end", "transfer_end", "decode_admit", "end")
    stamp = {name: column(server, f"{name}_ns") for name in names}
    handed = ~np.isnan(column(server, "transfer_start_ns")) | ~np.isnan(stamp["transfer_end"])
    admitted = np.where(np.isnan(stamp["decode_admit"]) & ~handed, stamp["prefill_end"], stamp["decode_admit"])
    spans = {
        "waiting for prefill": (stamp["arrive"], _until(stamp["prefill_start"], stamp["end"])),
        "in hand-off": (np.where(handed, stamp["prefill_end"], np.nan), _until(stamp["decode_admit"], stamp["end"])),
        "decoding": (admitted, stamp["end"]),
    }
    for name, (start, end) in spans.items():
        known = ~np.isnan(start) & (end >= start)
        if not known.any():
            continue
        at = np.concatenate([start[known], end[known]])
        change = np.repeat([1, -1], int(known.sum()))
        instants, place = np.unique(at, return_inverse=True)
        count = np.cumsum(np.bincount(place, weights=change)).round().astype(np.int64)
        for instant, value in zip(instants[instants <= until_ns], count, strict=False):
            process.add("C", name, float(instant), args={"requests": int(value)})


def _until(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.where(np.isnan(first), second, first), dtype=np.float64)
