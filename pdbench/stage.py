"""The stage every verb plays on: arms that are started once, run plans in turn, and are stopped whatever happens.

``compare``, ``gate``, ``search`` and ``tune`` differ in which plan they give to which arm next and in what they
conclude. Starting, waiting, restarting, storing and stopping is the same for all, and is here.

    with Stage("compare", backends, workload, settings, progress) as stage:
        stage.start()
        plan = stage.plan(pair=0)
        for arm in stage.arms:
            stage.run(arm, plan, pair=0)
        stage.results
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psutil

from pdbench.errors import BackendStartError, Interrupted, UsageError
from pdbench.live import ArmView, Progress
from pdbench.measure.slo import Objective, parse_objectives
from pdbench.run import RunContext, RunResult, run_plan
from pdbench.settings import Settings
from pdbench.stopping import StopFlag
from pdbench.store import RunStore, new_run_dir
from pdbench.target.arm import Arm
from pdbench.target.backend import Backend
from pdbench.target.fingerprint import git_sha, machine
from pdbench.workload.notes import notes_of
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.spec import Workload

if TYPE_CHECKING:
    from pdbench.load.outcome import Crew

_MEMORY_SHARE = 0.8
"""Of the memory that is available now: the client and the file cache need some too."""


class Stage:
    """The arms of one call and its run directory. ``results`` holds every run so far, in order."""

    def __init__(
        self,
        kind: str,
        backends: Sequence[Backend],
        workload: Workload,
        settings: Settings,
        progress: Progress,
        crew: Crew | None = None,
        stop: StopFlag | None = None,
    ) -> None:
        """Checks all input: raises ``UsageError`` before anything is started or written.

        ``crew``: carries the load of every run; by default what ``settings.fleet`` asks for, else one engine.
        ``stop``: the wish to stop, where signals are not ours to take.
        """
        self.kind = kind
        self.workload = workload
        self.settings = settings
        self.progress = progress
        self.objectives: list[Objective] = parse_objectives(workload.slo)
        known = [b.max_model_len for b in backends if b.max_model_len is not None]
        self._limit = min(known) if known else None
        make_plan(workload, seed=settings.seed, max_model_len=self._limit)
        self.run_dir = new_run_dir(settings.out_dir, workload.name, git_sha()[:7] or "nogit", datetime.now(UTC))
        progress.event(f"{kind}: workload {workload.name}, results in {self.run_dir}")
        for note in notes_of(workload):
            progress.event(f"note: {note}")
        self.arms = [Arm(backend, self.run_dir) for backend in backends]
        self.store = RunStore(self.run_dir)
        self.nonce = os.urandom(6).hex()
        self.plans: dict[int, Plan] = {}
        self.results: list[RunResult] = []
        self.resident = fits_in_memory(self.arms)
        self.stop = stop or StopFlag()
        self._crew = crew
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.stop)
        self._stack.callback(stop_all, self.arms)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def crew(self) -> Crew | None:
        """Who carries the load; None: one engine beside us."""
        return self._crew

    # ---- arms

    def start(self) -> None:
        """Starts every arm; together where they fit, one after another (and stopped again) where they do not.

        Raises ``BackendStartError`` and ``UsageError``; the run directory stays only if it holds logs.
        """
        with self._logs_named():
            self._gather()
            self._start()
            lengths = [arm.facts.max_model_len for arm in self.arms if arm.facts and arm.facts.max_model_len]
            self._limit = min(lengths) if lengths else None

    def _gather(self) -> None:
        """The load workers first: they cost seconds to wait for, a server may cost minutes to start."""
        if self.settings.fleet is None or self._crew is not None:
            return
        from pdbench.load.fleet import Fleet

        self._crew = fleet = self._stack.enter_context(Fleet(self.settings.fleet, self.progress.event))
        fleet.gather(self.stop)
        self.stop.check()

    def _start(self) -> None:
        progress = self.progress
        if not self.resident:
            progress.event("memory does not hold all arms at once: each is started for its runs only")
        for arm in self.arms if self.resident else ():
            progress.show(ArmView(arm.name, "starting", pairs=self.settings.pairs))
            progress.event(f"{arm.name}: {_how(arm)}")
            arm.begin_start()
        for arm in self.arms:
            if not self.resident:
                progress.event(f"{arm.name}: {_how(arm)}")
                arm.begin_start()
            arm.finish_start(self.stop)
            progress.show(ArmView(arm.name, "ready", pairs=self.settings.pairs))
            progress.event(f"{arm.name}: ready at {arm.server.base_url}")
            if not self.resident:
                arm.stop()

    @contextmanager
    def _logs_named(self) -> Iterator[None]:
        """A start that failed or was stopped leaves the logs and says where; without logs, no directory is left."""
        try:
            yield
        except (BackendStartError, UsageError, Interrupted):
            if logs := sorted(self.run_dir.glob("server-*.log")):
                self.progress.event(f"logs: {', '.join(str(log) for log in logs)}")
            else:
                shutil.rmtree(self.run_dir, ignore_errors=True)
            raise

    def arm(self, name: str) -> Arm:
        """The arm of that name. Raises ``KeyError``."""
        return {arm.name: arm for arm in self.arms}[name]

    # ---- runs

    def plan(
        self, pair: int, *, seed: int | None = None, workload: Workload | None = None, number: int | None = None
    ) -> Plan:
        """The plan of a pair, short enough for every arm's model. ``workload``: another than the call's, at
        another rate for instance. ``number``: keep it under this pair number instead (one draw at several rates)."""
        plan = make_plan(
            workload or self.workload,
            seed=self.settings.seed if seed is None else seed,
            pair=pair,
            max_model_len=self._limit,
        )
        if plan.dropped and not self.plans:
            dropped = f"{plan.dropped} rows of the trace are longer than {self._limit} tokens"
            self.progress.event(f"{dropped} and are left out")
        if number is not None:
            plan = replace(plan, pair=number)
        self.keep(plan)
        return plan

    def keep(self, plan: Plan) -> None:
        """Notes a plan under its pair number, on disk before it is run."""
        self.plans[plan.pair] = plan
        self.store.write_plan(plan)

    def run(self, arm: Arm, plan: Plan, pair: int, *, workload: Workload | None = None) -> RunResult:
        """Offers the plan to the arm, started again if it died, and stores what came back.

        Raises ``Interrupted`` before the run if the user asked to stop.
        """
        self.stop.check()
        if arm.ensure(self.stop) and self.resident:
            self.progress.event(f"{arm.name}: started again")
        result = run_plan(arm, plan, pair, self._context(workload))
        self.results.append(result)
        self.store.append_run(result.requests, result.tokens)
        self.store.write_probe(arm.name, pair, result.probe)
        if not self.resident:
            arm.stop()
        return result

    def _context(self, workload: Workload | None) -> RunContext:
        return RunContext(
            workload=workload or self.workload,
            settings=self.settings,
            nonce=self.nonce,
            journals=self.run_dir,
            progress=self.progress,
            should_stop=self.stop,
            crew=self._crew,
        )

    # ---- the end

    def ran(self) -> list[Arm]:
        """Arms with at least one run."""
        names = {result.arm for result in self.results}
        return [arm for arm in self.arms if arm.name in names]

    def of(self, arm: Arm) -> list[RunResult]:
        """The arm's runs, in order."""
        return [result for result in self.results if result.arm == arm.name]

    def fingerprint(self) -> dict[str, Any]:
        return {**machine(), "arms": {arm.name: arm.fingerprint() for arm in self.ran()}}

    def with_settings(self, **changes: Any) -> None:
        """Changes settings of the call, e.g. how many pairs it turned out to need."""
        self.settings = replace(self.settings, **changes)

    def seal(self, manifest: dict[str, Any], document: dict[str, Any]) -> None:
        """Writes the server's own stamps, the manifest and the document, and closes the store."""
        lifecycles = [_tagged(r, row) for r in self.results for row in r.server.lifecycles]
        steps = [_tagged(r, row) for r in self.results for row in r.server.steps]
        if lifecycles or steps:
            self.store.write_server(lifecycles, steps)
        self.store.seal(manifest, document)


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


def _how(arm: Arm) -> str:
    if not arm.backend.started_by_us:
        return f"asking {arm.server.base_url}"
    return f"starting, log in {arm.server.log_path}"


def _tagged(run: RunResult, row: dict[str, Any]) -> dict[str, Any]:
    return {"arm": run.arm, "pair": run.pair, **row}
