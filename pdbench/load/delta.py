"""What engine and steering process say to each other: one JSON object a line, each way.

To the engine: the job, then ``Start``, perhaps ``Retime`` and ``Stop``; a closed pipe means stop too. From the engine:
``Ready``, a ``Delta`` a second, and ``Final`` last; ``Refused`` instead of ``Ready`` when it cannot work.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pdbench.load.lag import LagSummary
from pdbench.measure.audit import Audit, Spread

Clock = Literal["kernel", "user"]


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Run with this t0 (CLOCK_MONOTONIC ns, in the future)."""

    t0_ns: int


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End now: what runs becomes ``unfinished``, the rest is not offered."""


class Retime(msgspec.Struct, frozen=True, tag="retime"):
    """From ``at_ns`` (CLOCK_MONOTONIC) on, what is left of an open loop's plan comes ``factor`` times as fast."""

    at_ns: int
    factor: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Connections are open, the first bodies are made."""

    clock: Clock
    connections: int
    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The job cannot be run."""

    error: str
    where: str = ""
    remedy: str = ""


class Done(msgspec.Struct, frozen=True, array_like=True):
    """One finished request. Times from the scheduled instant; ``None`` where there is none, or where it failed."""

    status: str
    ttft_ms: float | None
    e2e_ms: float | None
    tokens: int
    error: str
    tpot_ms: float | None = None
    worst_gap_ms: float | None = None
    warmup: bool = False


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta"):
    """What happened since the last one; the counts are those of the run so far, warm-up included.

    ``offered``: due by now; ``sent``: written to a socket; ``failed``: ended in any way but ``ok``.
    ``ttft_hdr`` and ``tbt_hdr`` are HdrHistograms (us) of this interval, without the warm-up, ``""`` when empty.
    """

    t_s: float
    planned: int
    offered: int
    sent: int
    ok: int
    failed: int
    in_flight: int
    waiting: int
    tokens: int
    dispatch_lag: LagSummary
    client_lag: LagSummary
    ttft_hdr: str
    tbt_hdr: str
    done: list[Done]


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine did, for the manifest and the audit. Lags include the warm-up.

    What the figures of the audit mean: ``pdbench.measure.audit.Audit``. ``None``: not measured here.
    """

    clock: Clock
    timer: str
    dispatch_lag: LagSummary
    client_lag: LagSummary
    loop_lag: LagSummary = LagSummary()
    wake_lag: LagSummary = LagSummary()
    cpu_share: Spread | None = None
    cpu_wait_share: float | None = None
    events_per_read: float | None = None
    merged_share: float = 0.0
    unstamped_share: float = 0.0
    peak_rss_bytes: int = 0
    steal_share: float | None = None
    machine_load: float | None = None
    cpu_s: float
    wall_s: float
    connections_opened: int
    connections_failed: int
    retried: int
    late_bodies: int
    reads: int
    max_events_per_read: int
    clock_offset_drift_ns: int
    python: str
    uvloop: str

    def audit(self) -> Audit:
        """What the run is judged by."""
        return Audit(
            loop_lag_ms=_spread(self.loop_lag),
            kernel_lag_ms=_spread(self.client_lag) if self.clock == "kernel" else None,
            wake_lag_ms=_spread(self.wake_lag),
            cpu_share=self.cpu_share,
            cpu_wait_share=self.cpu_wait_share,
            events_per_read=self.events_per_read,
            max_events_per_read=self.max_events_per_read,
            merged_share=self.merged_share,
            unstamped_share=self.unstamped_share,
            clock_drift_us=self.clock_offset_drift_ns / 1e3,
            peak_rss_bytes=self.peak_rss_bytes,
            steal_share=self.steal_share,
            load=self.machine_load,
        )


def _spread(lag: LagSummary) -> Spread | None:
    if lag.p50_ms is None or lag.p99_ms is None or lag.max_ms is None:
        return None
    return Spread(lag.p50_ms, lag.p99_ms, lag.max_ms)


class Final(msgspec.Struct, frozen=True, kw_only=True, tag="final"):
    """The run is over and the journal closed. ``stopped``: before its end. ``retimed``: of each ``Retime`` the instant
    it named and the one that it took, which is later where the engine heard of it too late."""

    stopped: bool
    offered: int
    recorded: int
    facts: EngineFacts
    retimed: list[tuple[int, int]] = []

    def took_ns(self, at_ns: int) -> int:
        """When what a ``Retime`` of ``at_ns`` asked for came about."""
        return dict(self.retimed).get(at_ns, at_ns)


ToEngine = Start | Stop | Retime
FromEngine = Ready | Refused | Delta | Final
