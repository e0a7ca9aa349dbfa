"""One pair: one frozen plan replayed to two arms, and what the gate is told of it.

    both = run_pair(stage, number=0, turn=0)      # (evidence of the base, evidence of the head)

``gate`` and ``calibrate`` run the same pairs; what they conclude differs. Before each run the devices are probed; a
pair in which the machine, the client or a clock moved too far is run again, by default once, under a number of its
own, so that every run stays on disk and none is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdbench.measure.slo import Objective
from pdbench.measure.validity import Reason
from pdbench.order import order_of
from pdbench.run import RunResult
from pdbench.stage import Stage
from pdbench.stats.gate import RunEvidence, faults
from pdbench.workload.plan import Plan

Both = tuple[RunEvidence, RunEvidence]
RunPair = Callable[[int, int], Both]
"""(a fresh pair number, the place in the order) -> base and head."""

_HARD_KEYS = (
    ("devices", "number of devices"),
    ("device_names", "devices"),
    ("model_hash", "model"),
    ("dtype", "number format"),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A pair that was run. ``set_aside``: the tries before it, by number, and why they do not count."""

    both: Both
    reasons: tuple[Reason, ...]
    set_aside: tuple[tuple[int, tuple[Reason, ...]], ...] = ()

    @property
    def next_number(self) -> int:
        return self.both[0].pair + 1


def evidence(result: RunResult, plan: Plan, devices: int, max_concurrency: int | None = None) -> RunEvidence:
    """One run as the gate sees it. How many requests there should be is the plan's to say, never the records'; only a
    closed loop that came to its end tells by itself how many fell due."""
    return RunEvidence(
        arm=result.arm,
        pair=result.pair,
        requests=result.requests,
        tokens=result.tokens,
        scheduled=result.scheduled,
        plan_hash=plan.hash,
        clock=result.clock,
        workers_lost=result.lost,
        interrupted=result.status == "interrupted",
        receive_lag_p99_ns=result.receive_lag_p99_ns,
        devices=devices,
        probe=result.probe,
        audit=result.audit,
        max_concurrency=max_concurrency,
    )


def run_pair(stage: Stage, number: int, turn: int) -> Both:
    """Replay one plan to both arms of the stage, the base first in even turns."""
    plan = stage.plan(number)
    found: dict[int, RunEvidence] = {}
    for place in order_of(2, turn):
        arm = stage.arms[place]
        result = stage.run(arm, plan, number)
        found[place] = evidence(result, plan, arm.backend.devices, stage.settings.max_concurrency)
    return found[0], found[1]


def take_pair(
    run: RunPair,
    number: int,
    turn: int,
    objectives: Sequence[Objective],
    probe_sd: Mapping[str, float],
    *,
    redo: int = 1,
) -> Taken:
    """Run a pair, and at most ``redo`` times more while the measurement goes wrong. An interruption is not tried
    again."""
    set_aside: list[tuple[int, tuple[Reason, ...]]] = []
    while True:
        both = run(number + len(set_aside), turn)
        reasons = tuple(pair_faults(both, objectives, probe_sd))
        if not reasons or len(set_aside) >= redo or any(one.interrupted for one in both):
            return Taken(both, reasons, tuple(set_aside))
        set_aside.append((both[0].pair, reasons))


def pair_faults(both: Both, objectives: Sequence[Objective], probe_sd: Mapping[str, float]) -> list[Reason]:
    """Every reason for which this pair does not count, that of a base which serves nothing among them."""
    base, head = both
    found = faults([base], [head], objectives, probe_sd)
    if base.scheduled and not completed(base):
        message = f"{base.arm}, pair {base.pair + 1}: the base completed no request, so nothing can be worse"
        found.append(Reason(message, "see its log; a base must serve the workload"))
    return found


def completed(run: RunEvidence) -> int:
    """Measured requests that ended well."""
    kept = ~run.requests["warmup"].to_numpy(dtype=bool)
    return int(np.sum(kept & (run.requests["status"] == "ok").to_numpy(dtype=bool)))


def hard_faults(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[Reason]:
    """Differences between the fingerprints of two live arms that make a comparison meaningless."""
    found = []
    for key, what in _HARD_KEYS:
        one, other = base.get(key), head.get(key)
        if one is None or other is None or _alike(one, other):
            continue
        message = f"the arms differ in their {what}: base {_shown(one)}, head {_shown(other)}"
        found.append(Reason(message, f"give both the same {what}; a gate compares code, not machines or models"))
    return found


def _alike(one: Any, other: Any) -> bool:
    return set(one) == set(other) if isinstance(one, list) and isinstance(other, list) else bool(one == other)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
