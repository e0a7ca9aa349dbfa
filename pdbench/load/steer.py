"""Locust steers, the engine measures: one call runs one load.

    outcome = run_load(job, on_delta=show)                 # one engine, beside this process
    outcome = run_load(job, on_delta=show, fleet=fleet)    # shared out to workers (fleet.py)

Locust is used as a library (Environment, LocalRunner, a shape made of the plan). Its ``test_start`` starts the
engine process; when the engine says READY, t0 is set a moment ahead; each request that ends is fired once into
Locust's statistics; all results come from the engine's journal. Locust is imported on the first call, and
leaves sockets, threads and subprocesses of this process as they are (``shape.py``).
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pdbench.load.delta import Delta, Final, FromEngine, Ready
from pdbench.load.drive import READY_LIMIT_S, Drive, retimed
from pdbench.load.job import Job
from pdbench.load.journal import read_journal
from pdbench.load.lag import LagSummary
from pdbench.load.outcome import Crew, Edit, LoadOutcome, LocustView, OnDelta, ShouldStop, Status
from pdbench.measure.records import RequestRecord

__all__ = ["LoadOutcome", "Local", "LocustView", "Status", "run_load"]

LEAD_NS = 50_000_000  # t0 after READY: the message takes far less, and the first request must not be late


@cache
def _locust() -> ModuleType:
    from pdbench.load import shape

    return shape


class Local:
    """This process and one engine: rank 0 of 1. ``environment``: Locust's, where it runs the show (``locust -f``),
    with its test started already; else each run has one of its own."""

    def __init__(self, environment: Any = None) -> None:
        self._environment = environment
        self._run: _Run | None = None

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """See ``run_load``."""
        self._run = run = _Run(job, on_delta, should_stop, self._environment)
        try:
            return run.run()
        finally:
            self._run = None

    def retime(self, run_id: str, factor: float) -> Edit | None:
        """What is left of the run of this id comes ``factor`` times as fast from a moment ahead on; None where nothing
        is left to change, or another run goes. Ask from another greenlet."""
        run = self._run
        return run.retime(factor) if run is not None and run.id == run_id else None


class _Run:
    """One load in progress."""

    def __init__(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop, environment: Any) -> None:
        self._job = job
        self._on_delta = on_delta
        self._should_stop = should_stop
        self._ours = environment is None
        if environment is None:
            environment, self._runner, self._shape = _locust().environment(job.scheduled_ns)
            environment.events.test_start.add_listener(self._test_start)
        self._env = environment
        self._drive: Drive | None = None
        self._edits: list[Edit] = []
        self._last_ns = 0

    @property
    def id(self) -> str:
        return self._job.run_id

    def run(self) -> LoadOutcome:
        Path(self._job.journal).unlink(missing_ok=True)
        try:
            self._start_engine()
            self._follow()
        finally:
            if self._ours:
                self._shape.over = True
            if self._drive is not None:
                self._drive.end()
            if self._ours:
                self._runner.quit()
        return self._outcome()

    def _test_start(self, **_: Any) -> None:
        self._drive = Drive(self._job)

    def _start_engine(self) -> None:
        """Let the runner come to its ``test_start``."""
        import gevent

        if not self._ours:
            self._drive = Drive(self._job)
            return
        self._runner.start_shape()
        limit = time.monotonic() + READY_LIMIT_S
        while self._drive is None and time.monotonic() < limit:
            gevent.sleep(0.001)

    def _follow(self) -> None:
        """Messages until FINAL, the engine's end, or a time limit."""
        drive = self._drive
        while drive is not None and not drive.over:
            try:
                self._step(drive)
            except KeyboardInterrupt:
                if drive.stopping:
                    raise
                drive.stop()

    def _step(self, drive: Drive) -> None:
        if self._should_stop is not None and self._should_stop():
            drive.stop()
        for message in drive.step():
            self._take(drive, message)

    def _take(self, drive: Drive, message: FromEngine) -> None:
        if isinstance(message, Delta):
            _locust().fire(self._env, self._job.endpoint.path, message)
            if self._on_delta is not None:
                self._on_delta(message)
        elif isinstance(message, Ready):
            drive.go(time.monotonic_ns() + LEAD_NS)
            self._last_ns = drive.t0_ns + self._job.scheduled_ns[-1]

    def retime(self, factor: float) -> Edit | None:
        """See ``Local.retime``."""
        at_ns, drive = time.monotonic_ns() + LEAD_NS, self._drive
        if drive is None or not self._last_ns > at_ns or self._job.concurrency or not drive.retime(at_ns, factor):
            return None
        self._last_ns = retimed(self._last_ns, at_ns, factor)
        self._edits.append(Edit(at_ns - drive.t0_ns, factor))
        return self._edits[-1]

    def _took(self, final: Final | None) -> list[Edit]:
        """The edits, each at the instant that the engine took."""
        t0_ns = self._drive.t0_ns if self._drive is not None else 0
        if final is None:
            return self._edits
        return [Edit(final.took_ns(t0_ns + edit.at_ns) - t0_ns, edit.factor) for edit in self._edits]

    def _read(self, journal: Path) -> list[RequestRecord]:
        """Beside greenlets of others in a thread: decoding a million records takes seconds."""
        if self._ours:
            return read_journal(journal)
        import gevent

        found: list[RequestRecord] = gevent.get_hub().threadpool.apply(read_journal, (journal,))
        return found

    def _outcome(self) -> LoadOutcome:
        drive = self._drive
        final = drive.final if drive else None
        status: Status = "engine_died"
        if final is not None:
            status = "interrupted" if final.stopped else "complete"
        journal = Path(self._job.journal)
        records = self._read(journal) if journal.exists() else []
        clock = final.facts.clock if final else (drive.ready.clock if drive and drive.ready else None)
        reason = drive.reason if drive else "Locust did not start the test"
        return LoadOutcome(
            status=status,
            records=sorted(records, key=lambda record: record.index),
            t0_ns=drive.t0_ns if drive else 0,
            dispatch_lag=drive.dispatch_lag if drive else LagSummary(),
            client_lag=drive.client_lag if drive else LagSummary(),
            clock=clock,
            facts=final.facts if final else None,
            locust=_locust().view(self._env),
            stderr=drive.stderr if drive else [],
            reason="" if final else reason,
            offered=final.offered if final else 0,
            edits=self._took(final),
        )


def run_load(
    job: Job, *, on_delta: OnDelta = None, should_stop: ShouldStop = None, fleet: Crew | None = None
) -> LoadOutcome:
    """Run one job to its end and return everything that was seen.

    ``on_delta`` is called about once a second, ``should_stop`` about ten times a second; both from the calling
    thread. Ctrl-C stops the engine and returns what there is as ``interrupted``; a second one is raised.
    Raises UsageError when the job cannot be run at all (host unknown, API key missing).
    """
    return (fleet or Local()).run(job, on_delta, should_stop)
