"""Arrival processes in one word, for the command line: ``ramp:1:8:60s``, ``spike:2:10:20s:5s``, ``closed:16``.

The parts are the keys of the workload file, in order; a curve's are points, ``curve:0s=1:30s=4:60s=1``.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from pdbench.errors import UsageError, did_you_mean
from pdbench.units import NS_PER_S, parse_duration_ns
from pdbench.workload.arrival_spec import Arrivals

_WHERE = "--arrivals"
_RATED = ("poisson", "constant", "gamma")
_PARTS: dict[str, tuple[str, ...]] = {
    "ramp": ("from", "to", "over"),
    "step": ("from", "to", "at"),
    "spike": ("rate", "peak", "at", "lasting"),
    "diurnal": ("rate", "swing", "period"),
}
_DURATIONS = frozenset({"over", "at", "lasting", "period"})
EXAMPLES = ("ramp:1:8:60s", "step:2:8:30s", "spike:2:10:20s:5s", "diurnal:3:0.6:120s", "curve:0s=1:30s=4", "closed:16")


def read_arrivals(text: str, concurrency: int | None = None) -> Arrivals:
    """The arrivals that ``text`` spells; ``concurrency``: the streams of a closed loop, if not in it. Raises
    ``UsageError``."""
    process, *parts = text.split(":")
    if process == "closed":
        return _closed(text, parts, concurrency)
    if process in ("curve", *_PARTS):
        fields = {"points": _points(text, parts)} if process == "curve" else _named(text, process, parts)
        return _made(text, {"process": process, **fields})
    known = [*_RATED, *_PARTS, "curve", "closed", "trace:FILE"]
    remedy = "give the rate by --rate" if process in _RATED else did_you_mean(process, known)
    raise UsageError(f"unknown arrival process '{text}'", where=_WHERE, remedy=remedy)


def _closed(text: str, parts: list[str], concurrency: int | None) -> Arrivals:
    if len(parts) > 1 or (parts and concurrency is not None):
        raise UsageError(f"'{text}' is not understood", where=_WHERE, remedy="write closed:16, or --concurrency 16")
    streams = _number(text, "concurrency", parts[0]) if parts else concurrency
    if streams is None:
        raise UsageError("a closed loop needs a number of streams", where=_WHERE, remedy="add --concurrency N")
    if not math.isfinite(streams) or streams != int(streams):
        raise UsageError("concurrency must be a whole number", where=_WHERE)
    return _made(text, {"process": "closed", "concurrency": int(streams)})


def _named(text: str, process: str, parts: list[str]) -> dict[str, Any]:
    names = _PARTS[process]
    if len(parts) != len(names):
        example = next(one for one in EXAMPLES if one.startswith(process))
        form = ":".join([process, *(name.upper() for name in names)])
        raise UsageError(f"'{text}' is not understood", where=_WHERE, remedy=f"write {form}, e.g. {example}")
    return {
        name: part if name in _DURATIONS else _number(text, name, part) for name, part in zip(names, parts, strict=True)
    }


def _points(text: str, parts: list[str]) -> list[tuple[float, float]]:
    points = []
    for part in parts:
        time, equals, rate = part.partition("=")
        if not equals:
            remedy = "write TIME=RATE, e.g. curve:0s=1:30s=4"
            raise UsageError(f"'{part}' is not a point of a curve", where=_WHERE, remedy=remedy)
        points.append((parse_duration_ns(time, where=_WHERE) / NS_PER_S, _number(text, "rate", rate)))
    return points


def _number(text: str, name: str, part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise UsageError(f"{name} must be a number, got '{part}' in '{text}'", where=_WHERE) from None


def _made(text: str, fields: dict[str, Any]) -> Arrivals:
    try:
        return msgspec.convert(fields, Arrivals)
    except msgspec.ValidationError as error:
        raise UsageError(f"'{text}': {str(error).partition(' - at ')[0]}", where=_WHERE) from None
