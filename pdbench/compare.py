"""``pdbench compare``: every arm under the same frozen plans, pair by pair, and what may be concluded.

The order of things is the argument: all input is checked before anything starts; all arms are started before
anything is measured; each pair replays one plan to every arm in an order that cancels drift; every run is on
disk before the next begins; and whatever happens, everything that was started is stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from pdbench.document import assemble, exit_code, manifest
from pdbench.errors import BackendStartError, Interrupted, UsageError
from pdbench.live import ArmView, Progress
from pdbench.measure.slo import Objective, parse_objectives
from pdbench.measure.validity import combine
from pdbench.order import order_of
from pdbench.run import RunContext, RunResult, run_plan
from pdbench.settings import Settings
from pdbench.stopping import StopFlag
from pdbench.store import RunStore, new_run_dir
from pdbench.summary import arm_entry, fairness, judge_runs, run_entry
from pdbench.target.arm import Arm
from pdbench.target.arms import base_of
from pdbench.target.backend import Backend
from pdbench.target.fingerprint import git_sha, machine
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.spec import Workload

_MEMORY_SHARE = 0.8
"""Of the memory that is available now: the client and the file cache need some too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The document, where it lies, and what the process should end with."""

    document: dict[str, Any]
    run_dir: Path
    exit_code: int


@dataclass(slots=True)
class _Call:
    """What a running comparison holds."""

    kind: str
    workload: Workload
    settings: Settings
    progress: Progress
    stop: StopFlag
    arms: list[Arm]
    objectives: list[Objective]
    store: RunStore
    run_dir: Path
    resident: bool = True
    plans: list[Plan] = field(default_factory=list)
    results: list[RunResult] = field(default_factory=list)
    interrupted: bool = False
    nonce: str = field(default_factory=lambda: os.urandom(6).hex())


def compare(
    backends: Sequence[Backend],
    workload: Workload,
    settings: Settings,
    progress: Progress,
    *,
    base: str | None = None,
    kind: str = "compare",
) -> Outcome:
    """Run the comparison (with one backend and ``kind="run"``: a single run of a single arm).

    Raises ``UsageError`` and ``BackendStartError``; an interruption does not raise once something was
    measured: its partial result is written, INVALID, and the exit code says so.
    """
    base = base_of(backends, base)
    objectives = parse_objectives(workload.slo)
    known = [b.max_model_len for b in backends if b.max_model_len is not None]
    make_plan(workload, seed=settings.seed, max_model_len=min(known) if known else None)
    run_dir = new_run_dir(settings.out_dir, workload.name, git_sha()[:7] or "nogit", datetime.now(UTC))
    progress.event(f"{kind}: workload {workload.name}, results in {run_dir}")
    arms = [Arm(backend, run_dir) for backend in backends]
    with StopFlag() as stop, ExitStack() as stack:
        stack.callback(stop_all, arms)
        call = _Call(kind, workload, settings, progress, stop, arms, objectives, RunStore(run_dir), run_dir)
        call.resident = fits_in_memory(arms)
        with _logs_named(call):
            _start_all(call)
            call.plans = _make_plans(call)
        call.store.write_plan(call.plans)
        try:
            _run_pairs(call)
        except Interrupted:
            call.interrupted = True
        except BackendStartError:  # one that could not be started again: keep what was measured
            call.interrupted = True
            if call.results:
                _conclude(call, base)
            raise
        call.interrupted |= stop.requested
        return _conclude(call, base)


def fits_in_memory(arms: Sequence[Arm]) -> bool:
    """Whether all arms may stay resident between their runs."""
    needed = sum(arm.memory_estimate_bytes for arm in arms)
    return len(arms) == 1 or needed <= _MEMORY_SHARE * psutil.virtual_memory().available


def stop_all(arms: Sequence[Arm]) -> None:
    """Ask all to end, then wait for each."""
    for arm in arms:
        arm.server.begin_stop()
    for arm in arms:
        arm.stop()


@contextmanager
def _logs_named(call: _Call) -> Iterator[None]:
    """A start that failed leaves the servers' logs and says where; without logs, no directory is left."""
    try:
        yield
    except (BackendStartError, UsageError):
        if logs := sorted(call.run_dir.glob("server-*.log")):
            call.progress.event(f"logs: {', '.join(str(log) for log in logs)}")
        else:
            shutil.rmtree(call.run_dir, ignore_errors=True)
        raise


def _start_all(call: _Call) -> None:
    """Start every arm; together where they fit, one after another (and stopped again) where they do not."""
    progress, stop = call.progress, call.stop
    if not call.resident:
        progress.event("memory does not hold all arms at once: each is started for its runs only")
    for arm in call.arms if call.resident else ():
        progress.show(ArmView(arm.name, "starting", pairs=call.settings.pairs))
        progress.event(f"{arm.name}: {_how(arm)}")
        arm.begin_start()
    for arm in call.arms:
        if not call.resident:
            progress.event(f"{arm.name}: {_how(arm)}")
            arm.begin_start()
        arm.finish_start(stop)
        progress.show(ArmView(arm.name, "ready", pairs=call.settings.pairs))
        progress.event(f"{arm.name}: ready at {arm.server.base_url}")
        if not call.resident:
            arm.stop()
    for text in fairness(call.arms):
        progress.event(f"warning: {text}")


def _how(arm: Arm) -> str:
    if not arm.backend.started_by_us:
        return f"asking {arm.server.base_url}"
    return f"starting, log in {arm.server.log_path}"


def _make_plans(call: _Call) -> list[Plan]:
    """One plan a pair, short enough for every arm's model."""
    lengths = [arm.facts.max_model_len for arm in call.arms if arm.facts and arm.facts.max_model_len]
    limit = min(lengths) if lengths else None
    plans = [
        make_plan(call.workload, seed=call.settings.seed, pair=pair, max_model_len=limit)
        for pair in range(call.settings.pairs)
    ]
    if dropped := plans[0].dropped:
        call.progress.event(f"{dropped} rows of the trace are longer than {limit} tokens and are left out")
    return plans


def _run_pairs(call: _Call) -> None:
    ctx = RunContext(
        workload=call.workload,
        settings=call.settings,
        nonce=call.nonce,
        journals=call.run_dir,
        progress=call.progress,
        should_stop=call.stop,
    )
    for pair, plan in enumerate(call.plans):
        for place in order_of(len(call.arms), pair):
            call.stop.check()
            arm = call.arms[place]
            if arm.ensure(call.stop) and call.resident:
                call.progress.event(f"{arm.name}: started again")
            result = run_plan(arm, plan, pair, ctx)
            call.results.append(result)
            call.store.append_run(result.requests, result.tokens)
            if not call.resident:
                arm.stop()
        call.progress.event(f"pair {pair + 1}/{len(call.plans)} done")


def _conclude(call: _Call, base: str) -> Outcome:
    """Judge, summarise, compare and seal what was measured."""
    arms = [arm for arm in call.arms if any(r.arm == arm.name for r in call.results)]
    if not arms:
        raise Interrupted("interrupted before the first run began")
    by_arm = {arm.name: [r for r in call.results if r.arm == arm.name] for arm in arms}
    validities = {name: judge_runs(runs, call.objectives, call.settings) for name, runs in by_arm.items()}
    entries = {arm.name: arm_entry(arm, by_arm[arm.name], call.objectives, validities[arm.name]) for arm in arms}
    whole = min(len(runs) for runs in by_arm.values())
    per_pair = {
        arm.name: [run_entry(r, arm.backend.devices, call.objectives) for r in by_arm[arm.name][:whole]] for arm in arms
    }
    prints = {**machine(), "arms": {arm.name: arm.fingerprint() for arm in arms}}
    document = assemble(
        kind=call.kind,
        run=call.run_dir.name,
        workload=call.workload,
        objectives=call.objectives,
        plans=call.plans,
        fingerprint=prints,
        validity=combine(validities),
        interrupted=call.interrupted,
        arms=entries,
        per_pair=per_pair,
        base=base,
        warnings=fairness(arms),
    )
    lifecycles = [_tagged(r, row) for r in call.results for row in r.server.lifecycles]
    steps = [_tagged(r, row) for r in call.results for row in r.server.steps]
    if lifecycles or steps:
        call.store.write_server(lifecycles, steps)
    call.store.seal(manifest(document, call.plans, call.settings, call.nonce, base), document)
    return Outcome(document, call.run_dir, exit_code(document, call.settings, call.interrupted))


def _tagged(run: RunResult, row: dict[str, Any]) -> dict[str, Any]:
    return {"arm": run.arm, "pair": run.pair, **row}
