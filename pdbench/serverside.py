"""What a pdserve says after a run, as facts: how busy each device was, what crossed, and who died.

Whether the phases were separated is judged in ``measure/separation.py``.

Pure functions of ``/admin/state``, ``/admin/requests`` and ``/admin/steps``; the harness believes these only as
far as they agree with what it saw itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ServerSide:
    """One run, seen from inside. Empty for servers that are not ours. The window is the measured part."""

    state: Row = field(default_factory=dict)
    lifecycles: tuple[Row, ...] = ()
    steps: tuple[Row, ...] = ()
    window_ns: tuple[int, int] = (0, 0)


def busy_ns(run: ServerSide, devices: list[str]) -> list[int]:
    """Nanoseconds each device spent in steps inside the run's measured window, in the order of ``devices``."""
    device_of = {row["index"]: str(row.get("device", row["index"])) for row in run.state.get("workers", [])}
    first, last = run.window_ns
    busy = dict.fromkeys(devices, 0)
    for step in run.steps:
        name = device_of.get(step["worker"], str(step["worker"]))
        inside = min(step["end_ns"], last) - max(step["start_ns"], first)
        if inside > 0:
            busy[name] = busy.get(name, 0) + inside
    return list(busy.values())


def busy_shares(runs: Iterable[ServerSide], devices: list[str]) -> list[float]:
    """Busy share per device over all runs of an arm; empty when the server does not say."""
    known = [run for run in runs if run.steps and run.window_ns[1] > run.window_ns[0]]
    if not known:
        return []
    total = sum(run.window_ns[1] - run.window_ns[0] for run in known)
    per_run = [busy_ns(run, devices) for run in known]
    return [round(min(1.0, sum(column) / total), 4) for column in zip(*per_run, strict=False)]


def transfers(runs: Iterable[ServerSide]) -> tuple[int, int] | None:
    """(hand-offs, bytes) over all runs of a disaggregated arm, warm-up included; None for other arms."""
    states = [run.state for run in runs if separated(run.state)]
    if not states:
        return None
    books = [state.get("transfers", {}) for state in states]
    return sum(int(b.get("count", 0)) for b in books), sum(int(b.get("bytes", 0)) for b in books)


def dead_workers(run: ServerSide) -> list[int]:
    """Workers that ended by themselves, by index; the server lives on without them."""
    return [int(row["index"]) for row in run.state.get("workers", []) if not row.get("alive", True)]


def separated(state: Row) -> bool:
    """Whether the server has a prefill and a decode role."""
    roles = state.get("roles", {})
    return "prefill" in roles and "decode" in roles
