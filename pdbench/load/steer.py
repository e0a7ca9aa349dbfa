"""Locust steers, the engine measures: one call runs one load.

    outcome = run_load(job, on_delta=show)

Locust is used as a library (Environment, LocalRunner, a shape made of the plan). Its ``test_start`` starts the
engine process; when the engine says READY, t0 is set a moment ahead; each request that ends is fired once into
Locust's statistics; all results come from the engine's journal. Locust is imported on the first call, and
leaves sockets, threads and subprocesses of this process as they are (``shape.py``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pdbench.errors import UsageError
from pdbench.load.delta import Delta, EngineFacts, Final, FromEngine, Ready, Refused, Start, Stop
from pdbench.load.job import Job
from pdbench.load.journal import read_journal
from pdbench.load.lag import LagSummary
from pdbench.load.process import EngineProcess
from pdbench.measure.records import RequestRecord

Status = Literal["complete", "interrupted", "engine_died"]

LEAD_NS = 50_000_000  # t0 after READY: the message takes far less, and the first request must not be late
READY_LIMIT_S = 60.0
FINAL_SLACK_S = 15.0  # on top of plan and drain: parsing what ended last
STOP_LIMIT_S = 10.0
STOP_NOW_S = 2.0  # for an engine that said nothing it should have said
_POLL_S = 0.1  # how soon a wish to stop is seen


@dataclass(frozen=True, slots=True)
class LocustView:
    """Locust's own statistics of the run: alive, rounded, used for nothing but its UI."""

    version: str
    requests: int
    failures: int
    rps: float


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What came of one load. ``records`` in order of index; all of the plan's when ``complete``.

    ``interrupted``: stopped early; requests that were in flight are ``unfinished``, later ones have no record.
    ``engine_died``: records of what had ended by then; ``stderr`` holds the engine's last lines.
    """

    status: Status
    records: list[RequestRecord]
    t0_ns: int
    dispatch_lag: LagSummary
    client_lag: LagSummary
    clock: Literal["kernel", "user"] | None
    facts: EngineFacts | None
    locust: LocustView
    stderr: list[str] = field(default_factory=list)
    reason: str = ""


@cache
def _locust() -> ModuleType:
    from pdbench.load import shape

    return shape


class _Run:
    """One load in progress."""

    def __init__(
        self, job: Job, on_delta: Callable[[Delta], None] | None, should_stop: Callable[[], bool] | None
    ) -> None:
        self._job = job
        self._on_delta = on_delta
        self._should_stop = should_stop
        self._env, self._runner, self._shape = _locust().environment(job.scheduled_ns)
        self._env.events.test_start.add_listener(self._test_start)
        self._name = job.endpoint.path
        self._engine: EngineProcess | None = None
        self._ready: Ready | None = None
        self._final: Final | None = None
        self._lags: tuple[LagSummary, LagSummary] = (LagSummary(), LagSummary())
        self._messages: deque[FromEngine] = deque()
        self._t0_ns = 0
        self._stop_sent = False
        self._limit = 0.0
        self._reason = ""
        self._stderr: list[str] = []

    def run(self) -> LoadOutcome:
        Path(self._job.journal).unlink(missing_ok=True)
        try:
            self._runner.start_shape()
            self._start_engine()
            self._follow()
        finally:
            self._shape.over = True
            if self._engine is not None:
                status = self._engine.end(STOP_LIMIT_S if self._final else STOP_NOW_S)
                self._stderr = self._engine.last_lines()
                self._engine.close()
                self._reason = self._reason or f"the engine ended with status {status}"
            self._runner.quit()
        return self._outcome()

    def _test_start(self, **_: Any) -> None:
        self._engine = EngineProcess(self._job)

    def _start_engine(self) -> None:
        """Let the runner come to its ``test_start``."""
        import gevent

        limit = time.monotonic() + READY_LIMIT_S
        while self._engine is None and time.monotonic() < limit:
            gevent.sleep(0.001)
        self._limit = limit

    def _follow(self) -> None:
        """Messages until FINAL, the engine's end, or a time limit."""
        while True:
            try:
                self._step()
            except KeyboardInterrupt:
                if self._stop_sent:
                    raise
                self._stop()
            if self._engine is None or self._engine.eof or self._final is not None:
                return
            if time.monotonic() > self._limit:
                self._reason = "the engine did not answer in time"
                self._engine.kill()
                return

    def _step(self) -> None:
        if self._engine is None:
            self._reason = "Locust did not start the test"
            return
        if not self._stop_sent and self._should_stop is not None and self._should_stop():
            self._stop()
        if not self._messages:
            self._messages.extend(self._engine.receive(_POLL_S))
        while self._messages:  # one at a time: Ctrl-C may come in the middle, and nothing may be lost
            self._take(self._messages.popleft())

    def _stop(self) -> None:
        self._stop_sent = True
        self._limit = time.monotonic() + STOP_LIMIT_S
        if self._engine is not None:
            self._engine.send(Stop())

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, Delta):
            self._lags = message.dispatch_lag, message.client_lag
            self._fire(message)
            if self._on_delta is not None:
                self._on_delta(message)
        elif isinstance(message, Final):
            self._final = message
        elif isinstance(message, Refused):
            raise UsageError(message.error, where=message.where, remedy=message.remedy)
        else:
            self._ready = message
            self._go()

    def _go(self) -> None:
        if self._stop_sent or self._engine is None:
            return
        job = self._job
        self._t0_ns = time.monotonic_ns() + LEAD_NS
        self._engine.send(Start(self._t0_ns))
        self._limit = time.monotonic() + job.scheduled_ns[-1] / 1e9 + job.drain_timeout_s + FINAL_SLACK_S

    def _fire(self, delta: Delta) -> None:
        for done in delta.done:
            self._env.events.request.fire(
                request_type="POST",
                name=self._name,
                response_time=done.e2e_ms or 0.0,
                response_length=done.tokens,
                exception=None if done.status == "ok" else f"{done.status}: {done.error}",
                context={},
            )

    def _outcome(self) -> LoadOutcome:
        final = self._final
        status: Status = "engine_died"
        if final is not None:
            status = "interrupted" if final.stopped else "complete"
        journal = Path(self._job.journal)
        records = read_journal(journal) if journal.exists() else []
        total = self._env.stats.total
        return LoadOutcome(
            status=status,
            records=sorted(records, key=lambda record: record.index),
            t0_ns=self._t0_ns,
            dispatch_lag=final.facts.dispatch_lag if final else self._lags[0],
            client_lag=final.facts.client_lag if final else self._lags[1],
            clock=final.facts.clock if final else (self._ready.clock if self._ready else None),
            facts=final.facts if final else None,
            locust=LocustView(_locust().VERSION, total.num_requests, total.num_failures, total.total_rps),
            stderr=self._stderr,
            reason="" if final else self._reason,
        )


def run_load(
    job: Job,
    *,
    on_delta: Callable[[Delta], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LoadOutcome:
    """Run one job to its end and return everything that was seen.

    ``on_delta`` is called about once a second, ``should_stop`` about ten times a second; both from the calling
    thread. Ctrl-C stops the engine and returns what there is as ``interrupted``; a second one is raised.
    Raises UsageError when the job cannot be run at all (host unknown, API key missing).
    """
    return _Run(job, on_delta, should_stop).run()
