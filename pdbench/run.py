"""One run: one frozen plan offered once to one started arm. The smallest thing that may be compared.

A request is not a sample, a run is (docs/metrics.md); so everything that belongs to a run is taken together
here: the records of the client, the server's own stamps, whether the server survived, and the lags.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pdbench.errors import PdbenchError
from pdbench.live import Live, Progress
from pdbench.measure.audit import Audit
from pdbench.measure.records import to_frames
from pdbench.measure.slo import parse_objectives
from pdbench.serverside import ServerSide, dead_workers
from pdbench.settings import Settings
from pdbench.target import inspect
from pdbench.target.arm import Arm
from pdbench.wording import wording_of
from pdbench.workload.plan import Plan
from pdbench.workload.spec import Workload

if TYPE_CHECKING:
    import pandas as pd

    from pdbench.load.job import Job
    from pdbench.load.outcome import Crew, Edit, LoadOutcome, WorkerFacts

_SETTLE_S = 2.0
"""How long a server may take to book the last request after its client saw the end of it."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything one run left. ``scheduled``: measured requests of its plan. ``probe``: seconds by kernel of the
    calibration probe, taken before the run; empty for a server that is not ours. ``workers``, ``workers_lost``: the
    load workers that shared it, and the names of those that did not come to its end. ``audit``: what the load client
    measured of itself, of several workers the worst. ``edits``: how the rate was changed while it ran."""

    arm: str
    pair: int
    scheduled: int
    status: Literal["complete", "interrupted", "engine_died"]
    clock: Literal["kernel", "user"]
    requests: pd.DataFrame
    tokens: pd.DataFrame
    receive_lag_p99_ns: float | None
    server: ServerSide
    server_died: bool
    probe: Mapping[str, float] = field(default_factory=dict)
    workers: tuple[WorkerFacts, ...] = ()
    workers_lost: tuple[str, ...] = ()
    audit: Audit | None = None
    edits: tuple[Edit, ...] = ()

    @property
    def lost(self) -> int | list[str]:
        """Names of the workers that were lost; without workers, 1 if the engine died."""
        return list(self.workers_lost) or int(self.status == "engine_died")


@dataclass(frozen=True, slots=True)
class RunContext:
    """What is the same for all runs of a call. ``crew``: who carries the load; None: one engine beside us."""

    workload: Workload
    settings: Settings
    nonce: str
    journals: Path
    progress: Progress
    should_stop: Callable[[], bool]
    crew: Crew | None = None


def run_plan(arm: Arm, plan: Plan, pair: int, ctx: RunContext) -> RunResult:
    """Offer ``plan`` to a started arm and collect what both sides saw."""
    from pdbench.load.steer import run_load

    probe = arm.probe()
    arm.clear()
    job = make_job(arm, plan, pair, ctx)
    # Pairs that were run again have numbers beyond those that were planned.
    objectives = parse_objectives(ctx.workload.slo)
    live = Live(ctx.progress, arm.name, pair, max(ctx.settings.pairs, pair + 1), len(plan), objectives)
    outcome = run_load(job, on_delta=live, should_stop=ctx.should_stop, fleet=ctx.crew)
    if outcome.status == "engine_died":
        who = f"of {', '.join(outcome.workers_lost)}" if outcome.workers_lost else "of the load engine"
        ctx.progress.event(f"the load ended early: {outcome.reason}")
        if outcome.stderr:
            ctx.progress.event(f"last lines {who}:\n{_indented(outcome.stderr)}")
    requests, tokens = to_frames(outcome.records, arm.name, pair)
    server = collect(arm, _measured_window(requests)) if arm.server.alive else ServerSide()
    died = not arm.server.alive or bool(dead_workers(server))
    if died:
        arm.note_death(pair)
        ctx.progress.event(f"{arm.name}: the server died; its last lines:\n{_indented(arm.last_lines)}")
    live.end("died" if died else outcome.status)
    Path(job.journal).unlink(missing_ok=True)
    return RunResult(
        arm=arm.name,
        pair=pair,
        scheduled=_scheduled(plan, job, outcome),
        status=outcome.status,
        clock=outcome.clock or "user",
        requests=requests,
        tokens=tokens,
        receive_lag_p99_ns=_user_clock_lag_ns(outcome),
        server=server,
        server_died=died,
        probe=probe,
        workers=tuple(outcome.workers),
        workers_lost=tuple(outcome.workers_lost),
        audit=outcome.facts.audit() if outcome.facts is not None else None,
        edits=tuple(outcome.edits),
    )


def make_job(arm: Arm, plan: Plan, pair: int, ctx: RunContext) -> Job:
    """The plan as the load engine takes it. The salt differs from run to run, so that no cache can help."""
    from pdbench.load.job import Job

    facts = arm.facts
    if facts is None:
        raise PdbenchError("the arm was not started", where=arm.name)
    run_id = f"{ctx.nonce}-{pair}-{arm.name}"
    sampling = ctx.workload.sampling
    maker = arm.prompts(salt=run_id)
    return Job(
        base_url=arm.server.base_url,
        api=arm.backend.api,
        model=facts.model,
        api_key_env=arm.backend.api_key_env,
        clock=ctx.settings.clock,
        prompts=maker,
        index=list(range(len(plan))),
        scheduled_ns=plan.scheduled_ns.tolist(),
        prompt_tokens=plan.prompt_tokens.tolist(),
        output_tokens=plan.output_tokens.tolist(),
        warmup=plan.warmup.tolist(),
        concurrency=list(plan.concurrency),
        **wording_of(arm, plan, ctx.workload, maker),
        ignore_eos=sampling.ignore_eos and facts.ignore_eos,
        temperature=sampling.temperature,
        continuous_usage=facts.continuous_usage,
        extra_body=arm.backend.extra_body,
        drain_timeout_s=ctx.settings.drain_timeout_s,
        request_timeout_s=ctx.settings.request_timeout_s,
        max_concurrency=ctx.settings.max_concurrency,
        journal=str(ctx.journals / f"journal-{pair}-{arm.name}.bin"),
        run_id=run_id,
    )


def collect(arm: Arm, window_ns: tuple[int, int]) -> ServerSide:
    """The server's own account of the run, once it has booked every request it took."""
    if not arm.is_pdserve:
        return ServerSide()
    url = arm.server.base_url
    deadline = time.monotonic() + _SETTLE_S
    state = inspect.admin(url, "state")
    while state.get("live") and time.monotonic() < deadline:
        time.sleep(0.05)
        state = inspect.admin(url, "state")
    return ServerSide(
        state=state,
        lifecycles=tuple(inspect.admin(url, "requests").get("requests", [])),
        steps=tuple(inspect.admin(url, "steps").get("steps", [])),
        window_ns=window_ns,
    )


def _measured_window(requests: pd.DataFrame) -> tuple[int, int]:
    """First due time and last end of the measured requests; (0, 0) when none ended."""
    kept = requests.loc[~requests["warmup"].to_numpy(dtype=bool)]
    ends = kept["end_ns"].dropna()
    if not len(ends):
        return 0, 0
    return int(np.min(kept["scheduled_ns"])), int(ends.max())


def _scheduled(plan: Plan, job: Job, outcome: LoadOutcome) -> int:
    """Measured requests of the plan; of a closed loop that came to its end, those that the engines gave out. Their own
    count, not that of the records: one that left no record must be missed."""
    if job.concurrency and outcome.status == "complete":
        return outcome.offered - sum(record.warmup for record in outcome.records)
    return int((~plan.warmup).sum())


def _user_clock_lag_ns(outcome: LoadOutcome) -> float | None:
    """P99 of the event-loop probe, which stands for the receive error where the kernel does not stamp."""
    lag = outcome.client_lag.p99_ms
    return None if outcome.clock == "kernel" or lag is None else lag * 1e6


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
