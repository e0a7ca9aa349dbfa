"""From runs to the entries of the summary document: one per arm, pooled over its runs, with its validity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench import serverside
from pdbench.accounts import judge_separation, server_account
from pdbench.fairness import ArmFacts, Fairness, facts_of, preflight
from pdbench.measure.audit import Audit, worst
from pdbench.measure.latency import Floats, floats
from pdbench.measure.metrics import gaps_ns, handoff_gap_ms, measured, meets_jointly, request_metrics, summarise
from pdbench.measure.separation import Separation
from pdbench.measure.slo import Objective
from pdbench.measure.surface import Outcomes, flips, joint, leader, outcomes_of, slo_limits
from pdbench.measure.validity import Reason, Validity, judge, of_reasons
from pdbench.run import RunResult
from pdbench.settings import Settings
from pdbench.stats.proportions import LEAST_BATCHES, ShareEstimate, certify, estimate_share
from pdbench.stats.steady import steady_warnings
from pdbench.target import fingerprint
from pdbench.target.arm import Arm
from pdbench.target.backend import Backend
from pdbench.units import NS_PER_MS
from pdbench.workload.spec import Workload

_BATCH_REQUESTS = 10
"""Batches of one run must be longer than the queue's memory; with fewer requests they surely are not."""

Entry = dict[str, Any]


def pooled(runs: Sequence[RunResult]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The requests and tokens of several runs in one table each."""
    requests = pd.concat([run.requests for run in runs], ignore_index=True)
    return requests, pd.concat([run.tokens for run in runs], ignore_index=True)


def judge_runs(runs: Sequence[RunResult], objectives: Sequence[Objective], settings: Settings) -> Validity:
    """The validity of one arm over its runs."""
    requests, tokens = pooled(runs)
    lags = [run.receive_lag_p99_ns for run in runs if run.receive_lag_p99_ns is not None]
    found = judge(
        requests,
        objectives,
        "kernel" if all(run.clock == "kernel" for run in runs) else "user",
        lost_workers(runs),
        tokens=tokens,
        scheduled=sum(run.scheduled for run in runs),
        interrupted=any(run.status == "interrupted" for run in runs),
        max_concurrency=settings.max_concurrency,
        receive_lag_p99_ns=max(lags) if lags else None,
        audit=audit_of(runs),
    )
    if not any(run.edits for run in runs):
        return found
    return of_reasons(
        [*found.reasons, Reason("the rate was edited while it ran", "run it again and leave the rate alone")]
    )


def edit_entries(runs: Sequence[RunResult], rate: float | None) -> list[Entry]:
    """``edits`` of a document: when the rate was changed, by how much, and to what. ``rate``: the one planned."""
    found: list[Entry] = []
    for run in runs:
        now = rate
        for edit in run.edits:
            entry: Entry = {"arm": run.arm, "pair": run.pair, "at_s": round(edit.at_ns / 1e9, 6), "factor": edit.factor}
            if now is not None:
                now *= edit.factor
                entry["rate"] = round(now, 6)
            found.append(entry)
    return found


def audit_of(runs: Sequence[RunResult]) -> Audit | None:
    """The worst of what the client measured of itself; None where no engine came to its end."""
    return worst([run.audit for run in runs if run.audit is not None])


def disbelieved(requests: pd.DataFrame) -> list[str]:
    """One warning for what servers said of themselves that cannot be true."""
    notes = requests.loc[requests["note"] != "", "note"] if "note" in requests else ()
    if not len(notes):
        return []
    return [f"the server's usage was not believed for {len(notes)} of {len(requests)} requests: {next(iter(notes))}"]


def lost_workers(runs: Sequence[RunResult]) -> int | list[str]:
    """Names of the workers lost in these runs; of a run without workers, that its engine died counts as one."""
    names = [f"{name} (pair {run.pair + 1})" for run in runs for name in run.workers_lost]
    return names or sum(run.status == "engine_died" for run in runs)


def arm_entry(
    arm: Arm,
    runs: Sequence[RunResult],
    objectives: Sequence[Objective],
    validity: Validity,
    *,
    process: str = "",
) -> Entry:
    """One entry of ``arms``: pooled figures, and what the server said of itself. ``process``: the workload's
    arrivals; only stationary ones are judged for steadiness."""
    requests, tokens = pooled(runs)
    entry: Entry = summarise(requests, tokens, objectives, arm.backend.devices, validity=validity)
    entry |= attainment_intervals(runs, objectives)
    reported = requests.loc[~requests["warmup"].to_numpy(dtype=bool), "prompt_tokens"].dropna()
    if len(reported):
        entry["prompt_tokens_reported"] = round(float(reported.mean()), 4)
    if (audit := audit_of(runs)) is not None:
        entry["audit"] = audit.document()
    entry |= _server_side(arm, runs, requests, tokens)
    warnings = list(arm.facts.warnings) if arm.facts else []
    warnings += disbelieved(requests)
    warnings += _separation(arm, runs).warnings()
    warnings += steadiness(runs, process)
    if warnings:
        entry["warnings"] = warnings
    if workers := worker_entries(runs):
        entry["workers"] = workers
    if arm.died:
        entry["server_died"] = {"pairs": arm.died, "last_lines": arm.last_lines}
    return entry


def worker_entries(runs: Sequence[RunResult]) -> list[Entry]:
    """The load workers of every run, in order; empty where there were none."""
    return [{"pair": run.pair, **worker.document()} for run in runs for worker in run.workers]


def _server_side(arm: Arm, runs: Sequence[RunResult], requests: pd.DataFrame, tokens: pd.DataFrame) -> Entry:
    """Busy shares, hand-offs, and the three accounts (``accounts``)."""
    sides, entry = [run.server for run in runs], Entry()
    if shares := serverside.busy_shares(sides, _devices(arm)):
        entry["device_busy"] = shares
    crossed = serverside.transfers(sides)
    if crossed is not None:
        entry["handoff"] = {
            "transfers": crossed[0],
            "bytes": crossed[1],
            "gap_ms": handoff_gap_ms(requests, tokens),
        }
    size = _kv_bytes_per_token(arm)
    by_pair = {run.pair: run.server for run in runs}
    return entry | server_account(arm.name, by_pair, requests, tokens, devices=_devices(arm), kv_bytes_per_token=size)


def _separation(arm: Arm, runs: Sequence[RunResult]) -> Separation:
    return judge_separation({run.pair: run.server for run in runs}, _devices(arm), _kv_bytes_per_token(arm))


def _devices(arm: Arm) -> list[str]:
    return [str(name) for name in arm.backend.checked.get("devices", [])]


def _kv_bytes_per_token(arm: Arm) -> int | None:
    size = arm.backend.checked.get("model", {}).get("kv_bytes_per_token")
    return int(size) if size is not None else None


def attainment_intervals(runs: Sequence[RunResult], objectives: Sequence[Objective]) -> Entry:
    """``attainment_interval`` (95 %) of joint attainment and of every objective, a run being the unit.

    One run says nothing of how runs differ: it is cut into 20 batches if each has 10 requests, else there is no
    interval. Each objective is also certified or not: "met" only where the share it asks for is certain.
    """
    tables = [_kept(run) for run in runs]
    found: dict[str, list[float]] = {}
    certain: dict[str, str] = {}
    for objective in (None, *objectives) if objectives else ():
        estimate = _estimate([_good(derived, gaps, objective, objectives) for derived, gaps in tables])
        if estimate is None:
            continue
        found[objective.text if objective else "joint"] = [round(bound, 6) for bound in estimate.interval]
        if objective and 0 < objective.share < 1:
            certain[objective.text] = certify(estimate, objective.share).outcome
    return {"attainment_interval": found, "slo_certain": certain} if found else {}


def _kept(run: RunResult) -> tuple[pd.DataFrame, Floats]:
    """Measured requests, in order of arrival as ``to_frames`` has them, with their stamps; and the gaps."""
    requests, chunks = measured(run.requests, run.tokens)
    derived = request_metrics(requests, chunks)
    stamps = {"scheduled_ns": floats(requests["scheduled_ns"]), "end_ns": floats(requests["end_ns"])}
    return derived.assign(**stamps), gaps_ns(chunks)


def _good(
    derived: pd.DataFrame, gaps: Floats, objective: Objective | None, objectives: Sequence[Objective]
) -> npt.NDArray[np.bool_]:
    """Of each request (gap, for a pooled limit) in order of arrival, whether it keeps the limit; None: all limits."""
    if objective is None:
        return meets_jointly(derived, objectives)
    if objective.per_request:
        values = floats(derived[f"{objective.metric}_ns"])
    elif objective.limit_ns is None:
        return derived["completed"].to_numpy(dtype=bool)
    else:
        values = gaps
    values = values[~np.isnan(values)]
    return np.asarray(values <= (objective.limit_ns or 0), dtype=bool)


def _estimate(units: Sequence[npt.NDArray[np.bool_]]) -> ShareEstimate | None:
    units = [unit for unit in units if len(unit)]
    if len(units) == 1 and len(units[0]) >= LEAST_BATCHES * _BATCH_REQUESTS:
        units = np.array_split(units[0], LEAST_BATCHES)
    if len(units) < 2:
        return None
    counts = [(int(unit.sum()), len(unit)) for unit in units]
    met, offered = sum(met for met, _ in counts), sum(offered for _, offered in counts)
    if 0 < met < offered:
        return estimate_share(counts)
    return _unanimous(counts, 1.0 if met else 0.0)


def _unanimous(counts: list[tuple[int, int]], share: float) -> ShareEstimate:
    """All (or no) requests met: no spread to see. All of n says no less than all but one of n, so that estimate's
    bound is taken; else 239 of 240 would seem more certain than 240 of 240."""
    (met, offered), *rest = counts
    near = estimate_share([(met - 1 if share else met + 1, offered), *rest])
    low, high = near.interval
    return replace(near, share=share, interval=(low, 1.0) if share else (0.0, high))


def steadiness(runs: Sequence[RunResult], process: str) -> list[str]:
    """Steady-state warnings of all runs, one line a kind, the first run's words standing for all."""
    said: dict[str, tuple[str, list[int]]] = {}
    for run in runs:
        derived, _ = _kept(run)
        for one in steady_warnings(derived["scheduled_ns"], derived["end_ns"], derived["ttft_ns"], process):
            said.setdefault(one.kind, (f"{one.message}; {one.remedy}", []))[1].append(run.pair + 1)
    return [
        f"{kind} in pair {', '.join(map(str, pairs))} of {len(runs)}: {text}" for kind, (text, pairs) in said.items()
    ]


def run_entry(run: RunResult, devices: int, objectives: Sequence[Objective]) -> Entry:
    """The same figures of one run alone: what the paired comparison takes one value a run from."""
    return summarise(run.requests, run.tokens, objectives, devices)


def fairness_before(backends: Sequence[Backend]) -> Fairness:
    """What can be known before anything starts: what the YAMLs and ``pdserve check`` say."""
    return preflight(
        [facts_of(one.name, fingerprint.arm(one, None, {}), checked=one.checked, data=one.data) for one in backends]
    )


def fairness(arms: Sequence[Arm], workload: Workload) -> Fairness:
    """The same after the start, when the servers have said what they take."""
    return preflight([_facts(arm, workload) for arm in arms])


def _facts(arm: Arm, workload: Workload) -> ArmFacts:
    forced = (arm.facts.ignore_eos and workload.sampling.ignore_eos) if arm.facts else None
    return facts_of(
        arm.name, arm.fingerprint(), checked=arm.backend.checked, data=arm.backend.data, forced_output=forced
    )


def turns(runs: Sequence[RunResult], arms: Sequence[str], base: str, objectives: Sequence[Objective]) -> list[Entry]:
    """For each head, the nearest change of one limit that turns the order of the pooled requests over.

    Descriptive: it names where to look, and is no verdict. A head without such a limit has ``metric: null``.
    """
    limits = slo_limits(objectives)
    if base not in arms or not objectives:
        return []
    found = {}
    for name in arms:
        requests, tokens = pooled([run for run in runs if run.arm == name])
        found[name] = outcomes_of(request_metrics(*measured(requests, tokens)), objectives)
    return [_turn(base, head, found, limits) for head in arms if head != base and len(found[head]) and len(found[base])]


def _turn(base: str, head: str, found: dict[str, Outcomes], limits: dict[str, float]) -> Entry:
    now = leader(joint(found[base], limits), joint(found[head], limits))
    names = {"base": base, "head": head, "tie": None}
    entry: Entry = {"base": base, "head": head, "leads": names[now], "metric": None}
    nearest = next(iter(flips(found[base], found[head], limits)), None)
    if nearest is None:
        return entry
    was = limits[nearest.axis]
    return entry | {
        "metric": nearest.axis,
        "from_ms": round(was / NS_PER_MS, 6) if math.isfinite(was) else None,
        "to_ms": round(nearest.limit_ns / NS_PER_MS, 6),
        "would_lead": names[nearest.leads],
        "joint": {base: round(nearest.base, 6), head: round(nearest.head, 6)},
    }
