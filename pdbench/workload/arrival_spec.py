"""When requests are due: the arrival processes a workload file may name.

arrivals: {process: poisson, rate: 2.0}
arrivals: {process: spike, rate: 2, peak: 10, at: 20s, lasting: 5s}
arrivals: {process: closed, concurrency: 16}
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

from pdbench.workload.checks import LENGTH_MAX, not_negative, only, positive, require, seconds

Process = Literal[
    "poisson", "constant", "gamma", "ramp", "step", "spike", "diurnal", "curve", "closed", "trace", "at"
]  # fmt: skip
GapLaw = Literal["poisson", "constant", "gamma"]
TraceFormat = Literal["azure", "burstgpt", "mooncake", "bailian", "jsonl"]
CURVES = frozenset({"ramp", "step", "spike", "diurnal", "curve"})
"""Processes whose rate changes while the run goes."""

_GAPS = frozenset({"gaps", "burstiness"})
# Which optional keys belong to which process; every other one is refused there.
_KEYS: dict[str, frozenset[str]] = {
    "poisson": frozenset({"rate"}),
    "constant": frozenset({"rate"}),
    "gamma": frozenset({"rate", "burstiness"}),
    "ramp": frozenset({"from_", "to", "over"}) | _GAPS,
    "step": frozenset({"from_", "to", "at"}) | _GAPS,
    "spike": frozenset({"rate", "peak", "at", "lasting"}) | _GAPS,
    "diurnal": frozenset({"rate", "swing", "period"}) | _GAPS,
    "curve": frozenset({"points", "interpolate"}) | _GAPS,
    "closed": frozenset({"concurrency", "points"}),
    "trace": frozenset({"rate", "file", "format", "jitter", "start_row", "rows", "start_s", "duration_s"}),
    "at": frozenset({"times_ms"}),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "poisson": ("rate",),
    "constant": ("rate",),
    "gamma": ("rate",),
    "ramp": ("from_", "to", "over"),
    "step": ("from_", "to", "at"),
    "spike": ("rate", "peak", "at", "lasting"),
    "diurnal": ("rate", "swing", "period"),
    "curve": ("points",),
    "closed": (),
    "trace": ("file",),
    "at": ("times_ms",),
}


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """When requests are due. Rates are requests/s, durations are written with their unit (``60s``).

    ``poisson``, ``constant``, ``gamma``: ``rate``; ``burstiness`` is the shape of the gamma law of the gaps (1 is
    Poisson, below 1 is burstier). ``ramp`` goes ``from`` one rate ``to`` another ``over`` a time; ``step`` changes
    ``at`` an instant; ``spike`` is at ``peak`` from ``at``, ``lasting`` a while; ``diurnal`` is rate x (1 + ``swing``
    sin) with that ``period``; ``curve`` goes through ``points`` (t_s, rate), and keeps the last rate. Their gaps are
    Poisson's unless ``gaps`` names another law. ``closed``: ``concurrency`` streams, or ``points`` (t_s, streams);
    the next request leaves when a stream is free. ``trace``: ``file`` replayed, ``time_scale`` multiplies its gaps
    and ``length_scale`` its lengths, or ``rate`` rescales time to that mean rate; sliced by rows or by seconds;
    ``jitter`` spreads stamps that lie on a grid. ``at``: explicit instants in ms, for workloads that teach.
    """

    process: Process
    rate: float | None = None
    burstiness: float | None = None
    gaps: GapLaw | None = None
    from_: float | None = None
    to: float | None = None
    over: str | None = None
    peak: float | None = None
    at: str | None = None
    lasting: str | None = None
    swing: float | None = None
    period: str | None = None
    points: tuple[tuple[float, float], ...] | None = None
    interpolate: Literal["linear", "step"] | None = None
    concurrency: int | None = None
    file: str | None = None
    format: TraceFormat | None = None
    jitter: str | bool | None = None
    time_scale: float = 1.0
    length_scale: float = 1.0
    start_row: int | None = None
    rows: int | None = None
    start_s: float | None = None
    duration_s: float | None = None
    times_ms: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        only(self, self.process, _KEYS)
        for name in ("rate", "burstiness", "time_scale", "length_scale", "rows", "duration_s", "peak", "concurrency"):
            positive(name, getattr(self, name))
        for name in ("start_row", "start_s", "from_", "to", "swing"):
            not_negative(name, getattr(self, name))
        require(self, self.process, *_REQUIRED[self.process])
        for name in ("over", "lasting", "period", "at"):
            if getattr(self, name) is not None:
                seconds(name, getattr(self, name))
        if self.process in CURVES:
            self._check_curve()
        elif self.process == "closed":
            self._check_closed()
        elif self.process == "trace":
            self._check_trace()
        elif self.process == "at":
            self._check_instants()
        if self.process != "trace" and (self.time_scale != 1 or self.length_scale != 1):
            name = "time_scale" if self.time_scale != 1 else "length_scale"
            raise ValueError(f"{name} does not apply to '{self.process}'")

    @property
    def mean_rate(self) -> float | None:
        """Requests/s where one number says it; ``None`` where it is the plan that knows."""
        return self.rate if self.process != "spike" else None

    @property
    def can_rescale(self) -> bool:
        """Whether ``rate`` alone sets the load, so that a search may vary it. Not in a ``diurnal``: at another rate
        the same number of requests is another part of the day."""
        return self.process in ("poisson", "constant", "gamma", "trace")

    def _check_curve(self) -> None:
        if self.burstiness is not None and self.gaps != "gamma":
            raise ValueError("burstiness needs gaps: gamma")
        if self.from_ == 0 and self.to == 0:
            raise ValueError("to must be greater than 0 where from is 0: nothing would arrive")
        if self.swing is not None and self.swing > 1:
            raise ValueError(f"swing must be at most 1 (the rate would fall below 0), got {self.swing:g}")
        if self.points is not None:
            self._check_points("a rate")
            if not any(rate > 0 for _, rate in self.points):
                raise ValueError("points must hold a rate above 0: nothing would arrive")
            if len(self.points) > 1 and self.points[-1][0] == 0:
                raise ValueError("points must span some time")

    def _check_closed(self) -> None:
        if (self.concurrency is None) == (self.points is None):
            raise ValueError("concurrency is required for 'closed' (or points, never both)")
        if self.concurrency is not None and self.concurrency > LENGTH_MAX:
            raise ValueError(f"concurrency must be at most {LENGTH_MAX}, got {self.concurrency}")
        if self.points is not None:
            self._check_points("a number of streams")
            if any(streams != int(streams) for _, streams in self.points):
                raise ValueError("points must hold whole numbers of streams")
            if self.points[0][1] < 1:
                raise ValueError("points must start with at least one stream")

    def _check_points(self, what: str) -> None:
        points = self.points or ()
        if not points or points[0][0] != 0:
            raise ValueError("points must begin at 0 s")
        for time, value in points:
            not_negative("points", time)
            not_negative(f"points: {what}", value)
        if any(later[0] < sooner[0] for sooner, later in pairwise(points)):
            raise ValueError("points must not go backwards in time")

    def _check_trace(self) -> None:
        by_rows = self.start_row is not None or self.rows is not None
        if by_rows and (self.start_s is not None or self.duration_s is not None):
            raise ValueError("start_row and rows cannot be given with start_s and duration_s: slice one way")
        if self.rate is not None and self.time_scale != 1:
            raise ValueError("rate and time_scale both rescale the trace's time: give one of them")
        if self.jitter is False:  # YAML reads a bare ``off`` as no
            msgspec.structs.force_setattr(self, "jitter", "off")
        if self.jitter is True:
            raise ValueError("jitter must be auto, off or a duration like 1s")
        if self.jitter not in (None, "auto", "off"):
            seconds("jitter", str(self.jitter))

    def _check_instants(self) -> None:
        times = self.times_ms or ()
        if not times:
            raise ValueError("times_ms must not be empty")
        for time in times:
            not_negative("times_ms", time)
        if list(times) != sorted(times):
            raise ValueError("times_ms must not go backwards")
