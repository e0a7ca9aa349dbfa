"""``compare --saturate``: how much an arm puts through when it is never short of work.

Latency under an open load says nothing about the most an arm can do, and "disaggregation raises throughput" is a
claim about that. So each arm gets one closed-loop run: N streams, each of which sends its next request the moment
its last one ends. All requests of the plan are due at the start and at most N are open, which is the same thing.
How late a request leaves is then the queue in front of the server, not a fault of the client: no latency of this
run is reported, none of its rows is among the compared ones (they lie in ``saturation/``), and dispatch lag is not
judged.

It is the same work otherwise: the same lengths, the same sharing of prompts or the same real texts, and the same load
workers. Where the plan has fewer requests than are needed it is gone through again, and what a later round shares is
its own: no prefix cache may gain from the repetition.

Figures are taken from the first end of a request to the last send: before, all streams are in their first prompt
together; after, streams fall idle one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pdbench.errors import BackendStartError, UsageError
from pdbench.run import RunContext, RunResult, run_plan
from pdbench.serverside import busy_shares
from pdbench.stage import Stage
from pdbench.store import RunStore
from pdbench.target.arm import Arm
from pdbench.units import NS_PER_S
from pdbench.workload.plan import Plan
from pdbench.workload.segments import Pieces

if TYPE_CHECKING:
    from pdbench.load.outcome import Crew

DEFAULT_CONCURRENCY = 32
WAVES = 4
"""Requests a stream: the first wave fills the arm, the last one empties it, and two in between are measured."""

_LONGEST_S = 900.0
"""All requests are due at once, so the usual limits, which count from there, would cut a slow arm off."""

_ROUND_BITS = 40
"""Ids of shared pieces are below 2 ** 40."""


def concurrency_of(arms: Sequence[Arm]) -> int:
    """Streams that fill the batches of every arm: the largest sum of ``max_batch`` over an arm's decoding workers.
    One number for all arms; 32 where none says."""
    sums = [
        sum(int(w.get("max_batch") or 0) for w in arm.backend.checked.get("workers") or () if w["role"] != "prefill")
        for arm in arms
    ]
    return max(sums, default=0) or DEFAULT_CONCURRENCY


def closed_plan(plan: Plan, concurrency: int) -> Plan:
    """``WAVES`` requests a stream, all due at once: those of the measured part of ``plan`` in turn."""
    count = WAVES * concurrency
    measured = ~plan.warmup
    rows = np.flatnonzero(measured)
    taken = [(int(rows[place % len(rows)]), place // len(rows)) for place in range(count)]
    return Plan(
        scheduled_ns=np.zeros(count, dtype=np.int64),
        prompt_tokens=np.resize(plan.prompt_tokens[measured], count),
        output_tokens=np.resize(plan.output_tokens[measured], count),
        warmup=np.zeros(count, dtype=bool),
        seed=plan.seed,
        pair=0,
        segments=tuple(_apart(plan.segments[row], turn) for row, turn in taken) if plan.segments else (),
        texts=tuple(f"Round {turn}. " * bool(turn) + plan.texts[row] for row, turn in taken) if plan.texts else (),
    )


def _apart(pieces: Pieces, turn: int) -> Pieces:
    """The pieces under ids of their own in each round."""
    return tuple((name + (turn << _ROUND_BITS), tokens) for name, tokens in pieces)


def saturate(stage: Stage, plan: Plan) -> dict[str, dict[str, Any]]:
    """One closed-loop run of every arm: the ``saturation`` entries by arm. Raises ``Interrupted``."""
    concurrency = stage.settings.saturate_concurrency or concurrency_of(stage.arms)
    closed = closed_plan(plan, concurrency)
    stage.progress.event(f"saturation: {concurrency} streams, {len(closed)} requests an arm, closed loop")
    if stage.crew is not None and not _crew(stage, concurrency):
        stage.progress.event("saturation: fewer streams than load workers, so one engine here carries it")
    store = RunStore(stage.run_dir / "saturation")
    store.write_plan(closed)
    entries = {}
    for arm in stage.arms:
        stage.stop.check()
        result = _run(stage, arm, closed, concurrency)
        if isinstance(result, str):
            entries[arm.name] = _without_run(closed, concurrency, result)
        else:
            store.append_run(result.requests, result.tokens)
            entries[arm.name] = saturation_entry(result, arm.backend.devices, _names(arm), concurrency)
        if not stage.resident:
            arm.stop()
    store.seal({"kind": "saturation", "run": stage.run_dir.name, "plan_hashes": [closed.hash]}, {"arms": entries})
    return entries


def _run(stage: Stage, arm: Arm, closed: Plan, concurrency: int) -> RunResult | str:
    """Why there is none, where a server that died before does not start again, or load workers stay away: the pairs
    are not worth less for that."""
    why = "the server did not start again"
    try:
        arm.ensure(stage.stop)
        why = "the load could not be run"
        result = run_plan(arm, closed, 0, _context(stage, concurrency))
    except (BackendStartError, UsageError) as error:
        stage.progress.event(f"warning: {arm.name}: no saturation run: {error}")
        return why
    if result.server_died:
        arm.died.pop()  # ``died`` names pairs, and this run is none
    return result


def _without_run(closed: Plan, concurrency: int, why: str) -> dict[str, Any]:
    counts = {"scheduled": len(closed), "ok": 0, "failed": len(closed), "warmup": 0}
    return {"concurrency": concurrency, "requests": counts, "warnings": [why]}


def _names(arm: Arm) -> list[str]:
    return [str(name) for name in arm.backend.checked.get("devices", [])]


def _context(stage: Stage, concurrency: int) -> RunContext:
    """The call's own, but closed: N open at once, and time enough for all to end."""
    settings = replace(
        stage.settings,
        pairs=1,
        max_concurrency=concurrency,
        drain_timeout_s=max(stage.settings.drain_timeout_s, _LONGEST_S),
        request_timeout_s=max(stage.settings.request_timeout_s, _LONGEST_S),
    )
    return RunContext(
        workload=stage.workload,
        settings=settings,
        nonce=f"{stage.nonce}-saturate",
        journals=stage.run_dir,
        progress=stage.progress,
        should_stop=stage.stop,
        crew=_crew(stage, concurrency),
    )


def _crew(stage: Stage, concurrency: int) -> Crew | None:
    """The workers of the pairs; None where there is not one stream for each of them."""
    fleet = stage.settings.fleet
    return None if fleet is not None and fleet.workers > concurrency else stage.crew


def saturation_entry(run: RunResult, devices: int, names: Sequence[str], concurrency: int) -> dict[str, Any]:
    """Throughput over the window in which all streams were busy, and busy shares of the same window."""
    requests, tokens = run.requests, run.tokens
    ok = int((requests["status"] == "ok").sum())
    counts = {"scheduled": run.scheduled, "ok": ok, "failed": run.scheduled - ok, "warmup": 0}
    entry: dict[str, Any] = {"concurrency": concurrency, "requests": counts}
    if run.server_died:
        return entry | {"warnings": ["the server died under it; it has no throughput"]}
    if run.status != "complete":
        return entry | {"warnings": [f"the run ended early ({run.status}); it has no throughput"]}
    window = full_window_ns(requests)
    if window is None:
        return entry | {"warnings": ["no stretch in which all streams were busy: too few requests completed"]}
    seconds = (window[1] - window[0]) / NS_PER_S
    arrived = float(tokens.loc[_inside(tokens["t_ns"], window), "n_tokens"].sum())
    ended = requests.loc[(requests["status"] == "ok") & _inside(requests["end_ns"], window)]
    entry |= {
        "window_s": round(seconds, 6),
        "requests_per_s": round(len(ended) / seconds, 6),
        "output_tokens_per_s": round(arrived / seconds, 6),
        "output_tokens_per_s_per_device": round(arrived / seconds / devices, 6),
    }
    if shares := busy_shares([replace(run.server, window_ns=window)], list(names)):
        entry["device_busy"] = shares
    return entry


def full_window_ns(requests: pd.DataFrame) -> tuple[int, int] | None:
    """From the first end to the last send; None where there is no time between them."""
    ends = requests.loc[requests["status"] == "ok", "end_ns"].dropna()
    sends = requests["sent_ns"].dropna()
    if not len(ends) or not len(sends) or int(sends.max()) <= int(ends.min()):
        return None
    return int(ends.min()), int(sends.max())


def _inside(stamps: pd.Series[Any], window: tuple[int, int]) -> pd.Series[bool]:
    first, last = window
    return ((stamps > first) & (stamps <= last)).fillna(False).astype(bool)
