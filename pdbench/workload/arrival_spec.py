"""When requests are due: the arrival processes a workload file may name."""

from __future__ import annotations

from typing import Literal

import msgspec

from pdbench.workload.checks import not_negative, only, positive, require

Process = Literal["poisson", "constant", "gamma", "trace", "at"]
# Which optional keys belong to which process; every other one is refused there.
_KEYS: dict[str, frozenset[str]] = {
    "poisson": frozenset({"rate"}),
    "constant": frozenset({"rate"}),
    "gamma": frozenset({"rate", "burstiness"}),
    "trace": frozenset({"rate", "file", "format", "start_row", "rows", "start_s", "duration_s"}),
    "at": frozenset({"times_ms"}),
}


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When requests are due.

    ``poisson``, ``constant``, ``gamma``: ``rate`` requests/s; ``burstiness`` is the shape of the gamma law
    of the gaps (1 is Poisson, below 1 is burstier). ``trace``: ``file`` replayed, ``time_scale`` multiplies
    its gaps and ``length_scale`` its lengths, or ``rate`` rescales time to that mean rate; sliced by rows
    or by seconds. ``at``: explicit instants in ms, for workloads that teach.
    """

    process: Process
    rate: float | None = None
    burstiness: float | None = None
    file: str | None = None
    format: Literal["azure"] | None = None
    time_scale: float = 1.0
    length_scale: float = 1.0
    start_row: int | None = None
    rows: int | None = None
    start_s: float | None = None
    duration_s: float | None = None
    times_ms: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        only(self, self.process, _KEYS)
        for name in ("rate", "burstiness", "time_scale", "length_scale", "rows", "duration_s"):
            positive(name, getattr(self, name))
        for name in ("start_row", "start_s"):
            not_negative(name, getattr(self, name))
        if self.process in ("poisson", "constant", "gamma"):
            require(self, self.process, "rate")
        elif self.process == "trace":
            self._check_trace()
        else:
            self._check_instants()
        if self.process != "trace" and (self.time_scale != 1 or self.length_scale != 1):
            name = "time_scale" if self.time_scale != 1 else "length_scale"
            raise ValueError(f"{name} does not apply to '{self.process}'")

    def _check_trace(self) -> None:
        require(self, "trace", "file")
        by_rows = self.start_row is not None or self.rows is not None
        if by_rows and (self.start_s is not None or self.duration_s is not None):
            raise ValueError("start_row and rows cannot be given with start_s and duration_s: slice one way")
        if self.rate is not None and self.time_scale != 1:
            raise ValueError("rate and time_scale both rescale the trace's time: give one of them")

    def _check_instants(self) -> None:
        require(self, "at", "times_ms")
        times = self.times_ms or ()
        if not times:
            raise ValueError("times_ms must not be empty")
        for time in times:
            not_negative("times_ms", time)
        if list(times) != sorted(times):
            raise ValueError("times_ms must not go backwards")
