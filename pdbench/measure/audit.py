"""What the load client measured of itself during a run: whether it was quick enough to be believed.

The commonest fault of a benchmark is a client that is itself the bottleneck and says nothing. These figures are
taken by the engine's own probe (``pdbench.load.probe``) and judged in ``validity``. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """Percentiles over the samples of a run."""

    p50: float
    p99: float
    max: float


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """The client in one run. ``None``: not measured on this system or clock.

    ``loop_lag_ms``: how late an alarm every 10 ms was served; what happens at any instant is served as late. Only
    alarms around a read or a send count.
    ``kernel_lag_ms``: userspace minus kernel stamp of each read. ``wake_lag_ms`` (user clock): how long after the
    first read of a wake-up of the event loop the others of the same wake-up were stamped. ``cpu_share``: processor
    time over wall time in windows of 100 ms. ``cpu_wait_share``: of the time in which the client wanted the
    processor, the part it had to wait for it. ``merged_share``: token-bearing events that shared a read with
    another one. ``unstamped_share``: reads that came without the kernel's stamp, on its clock. ``clock_drift_us``:
    how far the offset from the kernel's clock moved. ``steal_share``: what the hypervisor took from the machine.
    ``load``: runnable tasks of the machine, over a minute.
    """

    loop_lag_ms: Spread | None = None
    kernel_lag_ms: Spread | None = None
    wake_lag_ms: Spread | None = None
    cpu_share: Spread | None = None
    cpu_wait_share: float | None = None
    events_per_read: float | None = None
    max_events_per_read: int = 0
    merged_share: float = 0.0
    unstamped_share: float = 0.0
    clock_drift_us: float = 0.0
    peak_rss_bytes: int = 0
    steal_share: float | None = None
    load: float | None = None

    def document(self) -> dict[str, Any]:
        """As an arm's ``audit`` holds it: what was not measured is absent."""
        found: dict[str, Any] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Spread):
                value = {key: round(getattr(value, key), 4) for key in ("p50", "p99", "max")}
            elif isinstance(value, float):
                value = round(value, 4)
            if value is not None:
                found[name] = value
        return found


def worst(audits: Sequence[Audit]) -> Audit | None:
    """Of every figure the worst of several runs (or workers): one bad run is not made good by its neighbours."""
    if not audits:
        return None
    return Audit(**{name: _worst([getattr(one, name) for one in audits]) for name in Audit.__struct_fields__})


def _worst(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], Spread):
        return Spread(*(max(getattr(one, key) for one in known) for key in ("p50", "p99", "max")))
    return max(known)
