"""The gate's judgement: from two arms' runs to one verdict. Validity first, then the primary metric.

INVALID is for faults of the *measurement* only: another plan, a clock that ran differently in one arm, a late
client, requests that are not accounted for, a metric that is missing. A head that fails requests is a
regression. The verb that runs the pairs calls ``gate_verdict`` after each look; the validation of the gate
(``gate_validation``) calls the same functions on simulated runs and on runs that were tampered with.

    verdict = gate_verdict(base_runs, head_runs, objectives, primary="ttft_p90")
    verdict.status, verdict.next_pairs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pdbench.measure.audit import Audit
from pdbench.measure.latency import Floats, measured
from pdbench.measure.metrics import summarise
from pdbench.measure.slo import GAP_METRICS, Objective
from pdbench.measure.validity import LAG_BUDGET, LAG_WITHOUT_LIMIT_NS, Clock, Reason, judge
from pdbench.stats.paired import MARGINS, PRIMARY, pair_values, spread_floor
from pdbench.stats.sequential import Decision, Looks, Rule, Status, decide_family, replay
from pdbench.units import NS_PER_US, format_ms

Entry = dict[str, Any]

# A stamp taken by the kernel after userspace had the bytes: impossible, but for the conversion between clocks.
STAMP_SLACK_NS = 100 * NS_PER_US
# The probe may move inside a pair by 3 %, or by three of its own standard deviations where that is more.
PROBE_LEAST, PROBE_SDS = 0.03, 3.0


@dataclass(frozen=True, slots=True, eq=False)
class RunEvidence:
    """One run as the gate sees it: the tables of ``measure.records``, and what the harness knows of the run.

    ``scheduled``: measured requests the plan holds (of a closed loop: that fell due). ``probe``: seconds per kernel
    of the calibration probe before the run; empty where none was taken. ``audit``: what the client measured of itself.
    ``max_concurrency``: the limit of open requests under which it ran.
    """

    arm: str
    pair: int
    requests: pd.DataFrame
    tokens: pd.DataFrame
    scheduled: int
    plan_hash: str
    clock: Clock = "kernel"
    workers_lost: int | Sequence[str] = 0
    interrupted: bool = False
    receive_lag_p99_ns: float | None = None
    devices: int = 1
    probe: Mapping[str, float] = field(default_factory=dict)
    audit: Audit | None = None
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """``status`` is the primary metric's unless a reason makes the comparison INVALID. ``decisions``: one a
    metric, the primary among them; empty when nothing could be decided."""

    status: Status
    primary: str
    decisions: Mapping[str, Decision]
    reasons: tuple[Reason, ...] = ()
    next_pairs: int = 0

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "status": self.status,
            "primary": self.primary,
            "next_pairs": self.next_pairs,
            "reasons": [{"message": r.message, "remedy": r.remedy} for r in self.reasons],
            "metrics": {name: found.document() for name, found in self.decisions.items()},
        }


def gate_verdict(
    base: Sequence[RunEvidence], head: Sequence[RunEvidence], objectives: Sequence[Objective], *,
    primary: str = PRIMARY, secondary: Sequence[str] | None = None, looks: Looks | None = None,
    probe_sd: Mapping[str, float] | None = None,
) -> GateVerdict:  # fmt: skip
    """The verdict after these pairs, in order of pair. ``secondary``: by default every other metric that has
    a margin and applies."""
    reasons = faults(base, head, objectives, probe_sd or {})
    of_base, of_head = entries(base, objectives), entries(head, objectives)
    if secondary is None:
        secondary = applicable(of_base, of_head, primary)
    values = values_of(of_base, of_head, (primary, *secondary))
    return weigh(values, floors_of(of_base, of_head, values), primary, reasons, looks)


def faults(
    base: Sequence[RunEvidence], head: Sequence[RunEvidence], objectives: Sequence[Objective],
    probe_sd: Mapping[str, float],
) -> list[Reason]:  # fmt: skip
    """Every reason for which these runs cannot be compared."""
    if [run.pair for run in base] != [run.pair for run in head]:
        message = "the arms did not run the same pairs"
        return [Reason(message, "run the missing ones: a pair is one plan replayed to both arms")]
    found: list[Reason] = []
    for one, other in zip(base, head, strict=True):
        for run in (one, other):
            reasons = [*_judged(run, objectives), *stamp_faults(run, objectives)]
            found += [Reason(f"{run.arm}, pair {run.pair + 1}: {r.message}", r.remedy) for r in reasons]
        if one.plan_hash != other.plan_hash:
            message = f"pair {one.pair + 1}: the arms were offered different plans"
            found.append(Reason(message, "give both the same workload, seed and model length"))
        found += probe_faults(one, other, probe_sd)
    return found


def _judged(run: RunEvidence, objectives: Sequence[Objective]) -> Sequence[Reason]:
    return judge(
        run.requests,
        objectives,
        run.clock,
        run.workers_lost,
        tokens=run.tokens,
        scheduled=run.scheduled,
        interrupted=run.interrupted,
        max_concurrency=run.max_concurrency,
        receive_lag_p99_ns=run.receive_lag_p99_ns,
        audit=run.audit,
    ).reasons


def stamp_faults(run: RunEvidence, objectives: Sequence[Objective]) -> list[Reason]:
    """Stamps that contradict each other: a token before its request was sent, a clock that drifts or jumps.

    Kernel stamps and userspace's own clock bracket every read, so the distance between them must not be
    negative, nor wander over the run by more than 5 % of the tightest limit.
    """
    kept, chunks = measured(run.requests, run.tokens)
    found: list[Reason] = []
    first = chunks.groupby("index")["t_ns"].min()
    sent = kept.set_index("index")["sent_ns"].reindex(first.index).to_numpy(dtype=np.float64, na_value=np.nan)
    early = int((first.to_numpy(dtype=np.float64) < sent).sum())
    if early:
        message = f"{early} requests have a token that is older than the request"
        found.append(Reason(message, "the stamps mix clocks or units: use --clock user, and report this"))
    lags = [np.asarray(found_lags, dtype=np.float64) for found_lags in kept["user_lag_ns"] if len(found_lags)]
    if run.clock != "kernel" or not lags:
        return found
    if min(float(lag.min()) for lag in lags) < -STAMP_SLACK_NS:
        message = "the kernel stamped bytes later than they were read: its clock ran ahead or jumped"
        found.append(Reason(message, "let the clock settle (ntp), or use --clock user"))
    # The least lag of a request is the clock's own offset; what the client was busy with comes on top.
    least = np.array([lag.min() for lag in lags])
    third = max(len(least) // 3, 1)
    moved = abs(float(np.median(least[-third:]) - np.median(least[:third])))
    limits = [o.limit_ns for o in objectives if o.metric in (*GAP_METRICS, "ttft") and o.limit_ns]
    budget = LAG_BUDGET * min(limits) if limits else LAG_WITHOUT_LIMIT_NS
    if moved > budget:
        message = f"the receive clock moved by {format_ms(moved)} against the sender's over the run"
        found.append(Reason(message, "let the clock settle (ntp), or use --clock user"))
    return found


def probe_faults(base: RunEvidence, head: RunEvidence, probe_sd: Mapping[str, float]) -> list[Reason]:
    """The machine itself changed between the two runs of a pair. ``probe_sd``: relative SD of each kernel on
    this machine, as ``gate --calibrate`` stored it."""
    found = []
    for kernel in sorted(set(base.probe) & set(head.probe)):
        moved = abs(math.log(head.probe[kernel] / base.probe[kernel]))
        budget = max(PROBE_LEAST, PROBE_SDS * probe_sd.get(kernel, 0.0))
        if moved > budget:
            message = f"pair {base.pair + 1}: the machine's {kernel} probe moved by {moved:.1%} (budget {budget:.1%})"
            found.append(Reason(message, "run the pair again on a quieter machine"))
    return found


def entries(runs: Sequence[RunEvidence], objectives: Sequence[Objective]) -> list[Entry]:
    """One summary entry a run."""
    return [summarise(run.requests, run.tokens, objectives, run.devices) for run in runs]


def applicable(base: Sequence[Entry], head: Sequence[Entry], primary: str) -> list[str]:
    """The other metrics with a margin that apply in some pair of either arm."""
    found = values_of(base, head, [metric for metric in MARGINS if metric != primary])
    return [metric for metric, y in found.items() if not np.isnan(y).all()]


def values_of(base: Sequence[Entry], head: Sequence[Entry], metrics: Sequence[str]) -> dict[str, Floats]:
    """``y`` of every metric, one a pair; positive: the head is worse; NaN: absent."""
    return {metric: pair_values(base, head, metric) for metric in metrics}


def floors_of(
    base: Sequence[Entry], head: Sequence[Entry], metrics: Sequence[str] | Mapping[str, Any]
) -> dict[str, float]:
    """The least spread believed of every metric."""
    return {metric: spread_floor(base, head, metric) for metric in metrics}


def weigh(
    values: Mapping[str, Floats], floors: Mapping[str, float], primary: str, reasons: Sequence[Reason] = (),
    looks: Looks | None = None,
) -> GateVerdict:  # fmt: skip
    """The verdict from every metric's y, as the sequential rule comes to it: the first look that decides.

    A reason, or a value of the primary that is missing, makes it INVALID.
    """
    rules = {metric: Rule.of(metric, floor=floors.get(metric, 0.0), looks=looks) for metric in values}
    found = replay(values[primary], rules[primary])
    if found.status == "INVALID":
        message = f"{primary}: {found.reason}"
        reasons = [*reasons, Reason(message, "choose a metric that applies to every run, or repair the run")]
    if reasons:
        return GateVerdict("INVALID", primary, {}, tuple(reasons))
    until = found.pairs
    decisions = decide_family({metric: y[:until] for metric, y in values.items()}, rules, primary)
    if found.status != "go on":
        decisions = {metric: _ended(decision) for metric, decision in decisions.items()}
    return GateVerdict(found.status, primary, decisions, (), found.next_pairs)


def _ended(decision: Decision) -> Decision:
    """A secondary metric that is undecided when the primary ends the comparison stays undecided."""
    if decision.status != "go on":
        return decision
    reason = "neither was certain when the primary metric decided"
    return replace(decision, status="INCONCLUSIVE", next_pairs=0, reason=reason)
