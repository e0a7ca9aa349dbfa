"""From the ticks of a Locust ``LoadTestShape`` to arrivals: a rate over time, or a number of streams over time. Pure.

A tick says a number of users and how many of them a second may come or go; Locust moves towards the number at that
pace, and the next tick that differs takes over wherever it has got to. Read as a rate the number is requests/s
(open loop), read as concurrency it is streams kept open (closed loop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from msgspec.structs import replace

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, format_duration
from pdbench.workload.arrival_spec import Arrivals, GapLaw
from pdbench.workload.overrides import with_overrides
from pdbench.workload.spec import Workload

Means = Literal["rate", "concurrency"]
Point = tuple[float, float]
_MOST_POINTS = 100_000


@dataclass(frozen=True, slots=True)
class Tick:
    """What ``tick()`` returned at a run time: users, and users/s on the way there."""

    at_s: float
    users: float
    spawn_rate: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape's ticks up to ``end_s``. ``source``: FILE:CLASS, for messages."""

    source: str
    means: Means
    ticks: tuple[Tick, ...]
    end_s: float


def ramps(shape: Shape) -> list[Point]:
    """(t_s, users): linear in between, from 0 users at 0 s to the shape's end."""
    points: list[Point] = [(0.0, 0.0)]
    level, target, pace = 0.0, 0.0, 1.0
    at_s = 0.0

    def go_to(until_s: float) -> float:
        reach_s = at_s + abs(target - level) / pace
        if level != target and reach_s < until_s:
            points.append((reach_s, target))
        moved = min(until_s - at_s, reach_s - at_s) * pace
        found = target if reach_s <= until_s else level + math.copysign(moved, target - level)
        points.append((until_s, found))
        return found

    for tick in shape.ticks:
        if (tick.users, tick.spawn_rate) != (target, pace):
            level, at_s = go_to(tick.at_s), tick.at_s
            target, pace = float(tick.users), float(tick.spawn_rate)
    go_to(shape.end_s)
    return _tidy(points)


def _tidy(points: list[Point]) -> list[Point]:
    """Without points that say nothing: doubles, and those on a straight line."""
    kept: list[Point] = []
    for at_s, value in points:
        point = round(at_s, 6), round(value, 6)
        if kept and point == kept[-1]:
            continue
        if len(kept) >= 2 and _on_line(kept[-2], kept[-1], point):
            kept[-1] = point
        else:
            kept.append(point)
    return kept


def _on_line(a: Point, b: Point, c: Point) -> bool:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) < 1e-9


def streams(shape: Shape) -> list[Point]:
    """(from t_s, whole streams): on the way up the next one opens at once, on the way down the first goes at once."""
    found: list[Point] = []
    points = ramps(shape)
    for (t0, v0), (t1, v1) in pairwise(points):
        first, last = (math.floor(v0) + 1, math.ceil(v1)) if v1 > v0 else (math.ceil(v0) - 1, math.floor(v1))
        if v1 == v0 or t1 == t0:
            found.append((t0, round(v1)))
            continue
        step = 1 if v1 > v0 else -1
        for level in range(first, last + step, step):
            at_s = t0 + max(0.0, (level - step - v0) * step) / abs(v1 - v0) * (t1 - t0)
            found.append((round(at_s, 6), level))
        if len(found) > _MOST_POINTS:
            raise UsageError("the shape has too many steps", where=shape.source, remedy="raise its spawn rates")
    kept: list[Point] = []
    for at_s, count in found:
        if kept and kept[-1][0] == at_s:
            kept.pop()
        if not kept or kept[-1][1] != count:
            kept.append((at_s, count))
    return kept


def with_shape(w: Workload, shape: Shape, num_requests: int | None = None) -> Workload:
    """The workload driven by the shape. Raises ``UsageError`` where nothing would arrive."""
    try:
        if shape.means == "rate":
            law = w.arrivals.process if w.arrivals.process in ("constant", "gamma") else w.arrivals.gaps
            arrivals = _rate_curve(shape, law, w.arrivals.burstiness)
        else:
            arrivals = Arrivals(process="closed", points=tuple(streams(shape)))
        w = replace(w, arrivals=arrivals, duration=None)
        if num_requests is None:
            return with_overrides(w, duration_s=shape.end_s)
        if shape.means == "concurrency":  # the streams end with the shape, however many requests are left
            w = replace(w, duration=format_duration(round(shape.end_s * NS_PER_S)))
        return w
    except ValueError as error:
        raise UsageError(f"the shape cannot drive a load: {error}", where=shape.source, remedy=_remedy(shape)) from None


def _remedy(shape: Shape) -> str:
    if shape.means == "concurrency" and shape.ticks[0].users < 1:
        return "begin with at least 1 user, or read it as a rate: --shape-means rate"
    return ""


def _rate_curve(shape: Shape, law: str | None, burstiness: float | None) -> Arrivals:
    points = ramps(shape)
    gaps: GapLaw | None = "constant" if law == "constant" else "gamma" if law == "gamma" else None
    return Arrivals(
        process="curve",
        points=(*points, (shape.end_s, 0.0)),
        gaps=gaps,
        burstiness=burstiness if gaps == "gamma" else None,
    )
