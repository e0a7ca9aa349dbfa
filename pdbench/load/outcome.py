"""What came of one load, whoever carried it: this process, or workers on several machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pdbench.load.delta import Delta, EngineFacts
from pdbench.load.job import Job
from pdbench.load.lag import LagSummary
from pdbench.measure.records import RequestRecord

Status = Literal["complete", "interrupted", "engine_died"]
OnDelta = Callable[[Delta], None] | None
ShouldStop = Callable[[], bool] | None


@dataclass(frozen=True, slots=True)
class Edit:
    """From ``at_ns`` (since t0) on, what was left of the plan came ``factor`` times as fast. Of an outcome: as the
    engines say, the latest where there are several."""

    at_ns: int
    factor: float


@dataclass(frozen=True, slots=True)
class LocustView:
    """Locust's own statistics of the run: alive, rounded, used for nothing but its UI."""

    version: str
    requests: int
    failures: int
    rps: float


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker in one run. ``clock_offset_ns`` (its clock minus the master's) was taken off its stamps; 0 where
    both read the same clock. ``rtt_ns``: the quickest round trip, whose half bounds the offset's error.
    ``drift_ns``: how far the offset had moved by the end. ``lost``: it did not come to its end."""

    name: str
    host: str
    pid: int
    rank: int
    ranks: int
    same_clock: bool
    clock_offset_ns: int
    rtt_ns: int
    drift_ns: int
    requests: int
    lost: bool
    dispatch_lag: LagSummary
    client_lag: LagSummary
    facts: EngineFacts | None

    def document(self) -> dict[str, Any]:
        """As a summary document lists it."""
        return {
            "name": self.name,
            "host": self.host,
            "rank": self.rank,
            "ranks": self.ranks,
            "clock_offset_ms": round(self.clock_offset_ns / 1e6, 6),
            "rtt_ms": round(self.rtt_ns / 1e6, 6),
            "drift_ms": round(self.drift_ns / 1e6, 6),
            "requests": self.requests,
            "dispatch_lag_p99_ms": self.dispatch_lag.p99_ms,
            "client_lag_p99_ms": self.client_lag.p99_ms,
            "lost": self.lost,
        }


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What came of one load. ``records`` in order of index; all of the plan's when ``complete``.

    ``interrupted``: stopped early; requests that were in flight are ``unfinished``, later ones have no record.
    ``engine_died``: records of what had ended by then; ``stderr`` holds the engine's last lines. With workers,
    ``workers_lost`` names those that died, ``losses`` (``name: why``) says why, and ``workers`` lists all; without, all
    are empty. ``offered``: how many
    fell due, as the engines that came to their end counted them; every one of them must have a record. ``edits``: how
    the rate was changed meanwhile, in order.
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
    workers_lost: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    workers: list[WorkerFacts] = field(default_factory=list)
    offered: int = 0
    edits: list[Edit] = field(default_factory=list)


class Crew(Protocol):
    """Whoever can carry a load."""

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """Run one job to its end. Raises ``UsageError`` when it cannot be run at all."""
        ...
