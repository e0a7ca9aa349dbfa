"""From runs to the entries of the summary document: one per arm, pooled over its runs, with its validity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pdbench import serverside
from pdbench.measure.metrics import handoff_gap_ms, summarise
from pdbench.measure.slo import Objective
from pdbench.measure.validity import Validity, judge
from pdbench.run import RunResult
from pdbench.settings import Settings
from pdbench.target.arm import Arm

Entry = dict[str, Any]


def pooled(runs: Sequence[RunResult]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The requests and tokens of several runs in one table each."""
    requests = pd.concat([run.requests for run in runs], ignore_index=True)
    return requests, pd.concat([run.tokens for run in runs], ignore_index=True)


def judge_runs(runs: Sequence[RunResult], objectives: Sequence[Objective], settings: Settings) -> Validity:
    """The validity of one arm over its runs."""
    requests, tokens = pooled(runs)
    lags = [run.receive_lag_p99_ns for run in runs if run.receive_lag_p99_ns is not None]
    return judge(
        requests,
        objectives,
        "kernel" if all(run.clock == "kernel" for run in runs) else "user",
        sum(run.status == "engine_died" for run in runs),
        tokens=tokens,
        scheduled=sum(run.scheduled for run in runs),
        interrupted=any(run.status == "interrupted" for run in runs),
        max_concurrency=settings.max_concurrency,
        receive_lag_p99_ns=max(lags) if lags else None,
    )


def arm_entry(arm: Arm, runs: Sequence[RunResult], objectives: Sequence[Objective], validity: Validity) -> Entry:
    """One entry of ``arms``: pooled figures, and what the server said of itself."""
    requests, tokens = pooled(runs)
    entry: Entry = summarise(requests, tokens, objectives, arm.backend.devices, validity=validity)
    sides = [run.server for run in runs]
    shares = serverside.busy_shares(sides, [str(name) for name in arm.backend.checked.get("devices", [])])
    if shares:
        entry["device_busy"] = shares
    crossed = serverside.transfers(sides)
    if crossed is not None:
        entry["handoff"] = {
            "transfers": crossed[0],
            "bytes": crossed[1],
            "gap_ms": handoff_gap_ms(requests, tokens),
        }
    warnings = list(arm.facts.warnings) if arm.facts else []
    warnings += sorted({text for side in sides for text in serverside.proof(side)})
    if warnings:
        entry["warnings"] = warnings
    if arm.died:
        entry["server_died"] = {"pairs": arm.died, "last_lines": arm.last_lines}
    return entry


def run_entry(run: RunResult, devices: int, objectives: Sequence[Objective]) -> Entry:
    """The same figures of one run alone: what the paired comparison takes one value a run from."""
    return summarise(run.requests, run.tokens, objectives, devices)


def fairness(arms: Sequence[Arm]) -> list[str]:
    """Differences between arms that a reader must know before believing a comparison."""
    prints = {arm.name: arm.fingerprint() for arm in arms}
    found = []
    for key, what in (
        ("devices", "number of devices"),
        ("model_hash", "model"),
        ("dtype", "number format"),
        ("max_model_len", "maximum length"),
    ):
        values = {name: fields.get(key) for name, fields in prints.items() if fields.get(key) is not None}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name}: {value}" for name, value in values.items())
            found.append(f"the arms differ in their {what} ({shown})")
    return found
