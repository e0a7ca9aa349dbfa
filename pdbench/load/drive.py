"""Driving one engine from its job to FINAL: what a local run and a worker of a fleet do alike.

    drive = Drive(job)
    while not drive.over:
        for message in drive.step():
            ...                      # Ready: drive.go(t0_ns) when all are ready
    drive.end()

Every wait gives way to other greenlets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from pdbench.errors import UsageError
from pdbench.load.delta import Delta, Final, FromEngine, Ready, Refused, Retime, Start, Stop
from pdbench.load.job import Job
from pdbench.load.lag import LagSummary
from pdbench.load.process import EngineProcess

READY_LIMIT_S = 60.0
FINAL_SLACK_S = 15.0  # on top of plan and drain: parsing what ended last
STOP_LIMIT_S = 10.0
STOP_NOW_S = 2.0  # for an engine that said nothing it should have said
_POLL_S = 0.1  # how soon a wish to stop is seen


def limit_s(job: Job) -> float:
    """How long a job may take from t0 to FINAL at the very most.

    A closed loop has no instants: its bound is every stream waiting for every one of its requests to time out.
    """
    span_s = job.scheduled_ns[-1] / 1e9
    if job.concurrency:
        fewest = max(1, min((streams for _, streams in job.concurrency if streams), default=1))
        span_s = job.concurrency[-1][0] / 1e9 + -(-len(job) // fewest) * job.request_timeout_s
    return span_s + job.drain_timeout_s + FINAL_SLACK_S


def retimed(due_ns: int, at_ns: int, factor: float) -> int:
    """Where an instant lies after ``Retime(at_ns, factor)``."""
    return due_ns if due_ns <= at_ns else at_ns + round((due_ns - at_ns) / factor)


class Drive:
    """One engine at work. ``reason`` says why it ended without FINAL; ``stderr`` holds its last lines then."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.t0_ns = 0
        self.ready: Ready | None = None
        self.final: Final | None = None
        self.dispatch_lag, self.client_lag = LagSummary(), LagSummary()
        self.stopping = self.ended = False
        self.reason = ""
        self.stderr: list[str] = []
        self._last_ns = 0
        self._messages: deque[FromEngine] = deque()
        self._limit = time.monotonic() + READY_LIMIT_S
        self._engine = EngineProcess(job)

    @property
    def pid(self) -> int:
        return self._engine.pid

    @property
    def over(self) -> bool:
        """Nothing more will come: FINAL came, the engine died, or its time is up."""
        if self._messages:
            return False
        if self.final is None and not self._engine.eof and time.monotonic() > self._limit:
            self.reason = "the engine did not answer in time"
            self.kill()
            return True
        return self.final is not None or self._engine.eof

    def step(self) -> Iterator[FromEngine]:
        """What came within a tenth of a second. Raises UsageError when the engine refused the job.

        One at a time: Ctrl-C may come in the middle, and nothing may be lost.
        """
        if not self._messages:
            self._messages.extend(self._engine.receive(_POLL_S))
        while self._messages:
            message = self._messages.popleft()
            self._note(message)
            yield message

    def _note(self, message: FromEngine) -> None:
        if isinstance(message, Delta):
            self.dispatch_lag, self.client_lag = message.dispatch_lag, message.client_lag
        elif isinstance(message, Final):
            self.final = message
            facts = message.facts
            self.dispatch_lag, self.client_lag = facts.dispatch_lag, facts.client_lag
        elif isinstance(message, Refused):
            raise UsageError(message.error, where=message.where, remedy=message.remedy)
        else:
            self.ready = message
            self._limit = time.monotonic() + READY_LIMIT_S  # others may take longer to be ready

    def go(self, t0_ns: int) -> None:
        """Start at ``t0_ns`` of CLOCK_MONOTONIC, unless it is already being stopped."""
        if self.stopping:
            return
        self.t0_ns = t0_ns
        self._engine.send(Start(t0_ns))
        self._last_ns = t0_ns + self.job.scheduled_ns[-1]
        self._limit = t0_ns / 1e9 + limit_s(self.job)

    def retime(self, at_ns: int, factor: float) -> bool:
        """From ``at_ns`` on, what is left of the plan comes ``factor`` times as fast. False, and nothing changes,
        before t0 and when it is over or being stopped."""
        if self.stopping or self.ended or not self.t0_ns or self.over:
            return False
        self._engine.send(Retime(at_ns, factor))
        end_ns = self._last_ns
        self._last_ns = retimed(end_ns, at_ns, factor)
        self._limit += (self._last_ns - end_ns) / 1e9
        return True

    def stop(self) -> None:
        """End early: what runs becomes ``unfinished``, the rest is not offered."""
        if not self.stopping:
            self.stopping = True
            self._limit = time.monotonic() + STOP_LIMIT_S
            self._engine.send(Stop())

    def kill(self) -> None:
        self._engine.kill()

    def end(self) -> None:
        """Wait for the process, killing what is left of it after a while."""
        self.ended = True
        status = self._engine.end(STOP_LIMIT_S if self.final else STOP_NOW_S)
        self.stderr = self._engine.last_lines()
        self._engine.close()
        self.reason = self.reason or f"the engine ended with status {status}"
