"""Service-level objectives: one line of grammar, parsed strictly.

    METRIC STATISTIC <= LIMIT        ttft p90 <= 400ms    tbt p99 <= 100ms    errors <= 1%

``tbt`` is pooled over all gaps of all requests; every other latency is one value a request. "ttft p90 <=
400ms" holds when at least 90 % of the requests offered have a TTFT of 400 ms or less; a failed request has
none of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from pdbench.errors import UsageError, did_you_mean
from pdbench.units import NS_PER_MS, format_duration, parse_duration_ns, parse_share

REQUEST_METRICS = ("ttft", "service_ttft", "tpot", "worst_gap", "e2e", "ttst", "handoff_gap")
POOLED_METRICS = ("tbt",)
ERRORS = "errors"
METRICS = (*REQUEST_METRICS, *POOLED_METRICS, ERRORS)
# Limits on gaps: what the receive clock must be finer than.
GAP_METRICS = ("tpot", "worst_gap", "tbt", "handoff_gap")

_GRAMMAR = re.compile(r"(?P<metric>\w+)\s*(?P<stat>[a-z][\w.]*)?\s*(?P<op><=?|≤|>=?|=+)\s*(?P<limit>\S.*)")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
# What peers call these; named so that the message can say what we call them.
_ALIASES = {"itl": "tbt", "e2el": "e2e", "latency": "e2e", "error": "errors", "ttfb": "ttft"}
_EXAMPLE = "write it as 'ttft p90 <= 400ms' or 'errors <= 1%'"


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective. ``percentile`` in (0, 100] and ``limit_ns``, or, for ``errors``, ``limit_share``."""

    metric: str
    percentile: float | None = None
    limit_ns: int | None = None
    limit_share: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric '{self.metric}'")
        timed = self.metric != ERRORS
        if timed and (self.percentile is None or not self.limit_ns or self.limit_ns < 0):
            raise ValueError(f"{self.metric} needs a percentile and a limit above 0")
        if not timed and (self.limit_share is None or not 0 <= self.limit_share <= 1):
            raise ValueError("errors needs a share in 0..1")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise ValueError(f"the percentile must be in (0, 100], got {self.percentile:g}")

    @property
    def text(self) -> str:
        """Canonical text, the key in every document: 0.4s and 400ms are one objective."""
        if self.limit_ns is None or self.percentile is None:
            return f"{self.metric} <= {100 * (self.limit_share or 0.0):g}%"
        return f"{self.metric} p{self.percentile:g} <= {format_duration(self.limit_ns)}"

    @property
    def per_request(self) -> bool:
        """Whether one request alone can meet it, so that it takes part in joint attainment."""
        return self.metric in REQUEST_METRICS

    @property
    def share(self) -> float:
        """The share of requests (of gaps, for a pooled metric) that must keep the limit."""
        if self.percentile is None:
            return 1.0 - (self.limit_share or 0.0)
        return self.percentile / 100


def parse_objective(text: str, *, where: str = "") -> Objective:
    """``"ttft p90 <= 400ms"`` as an ``Objective``; raises ``UsageError`` saying which part is wrong."""
    match = _GRAMMAR.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"'{text}' is not an objective", where=where, remedy=_EXAMPLE)
    metric, stat, limit = match["metric"], match["stat"], match["limit"]
    if metric not in METRICS:
        near = _ALIASES.get(metric)
        remedy = f"did you mean '{near}'?" if near else did_you_mean(metric, METRICS)
        raise UsageError(f"unknown metric '{metric}' in '{text}'", where=where, remedy=remedy)
    if match["op"] not in ("<=", "≤"):
        raise UsageError(f"'{match['op']}' in '{text}' is not an upper limit", where=where, remedy="write <=")
    if metric == ERRORS:
        if stat is not None:
            raise UsageError(f"errors takes no '{stat}' in '{text}'", where=where, remedy="write errors <= 1%")
        return Objective(ERRORS, limit_share=parse_share(limit, where=where))
    if stat is None:
        raise UsageError(f"'{text}' names no percentile", where=where, remedy=f"write {metric} p90 <= {limit}")
    percentile = _PERCENTILE.fullmatch(stat)
    if percentile is None or float(percentile[1]) == 0:
        remedy = "averages hide the tail; write p50, p90 or p99" if stat in ("mean", "avg") else "write p90"
        raise UsageError(f"'{stat}' in '{text}' is not a percentile", where=where, remedy=remedy)
    limit_ns = parse_duration_ns(limit, where=where)
    if limit_ns <= 0:
        raise UsageError(f"the limit in '{text}' must be greater than 0", where=where, remedy=_EXAMPLE)
    return Objective(metric, percentile=float(percentile[1]), limit_ns=limit_ns)


def parse_objectives(texts: Sequence[str], *, where: str = "") -> list[Objective]:
    """Several objectives; the same one twice is a ``UsageError``."""
    found: list[Objective] = []
    for text in texts:
        objective = parse_objective(text, where=where)
        if objective in found:
            raise UsageError(f"'{objective.text}' is given twice", where=where, remedy="keep one")
        found.append(objective)
    return found


def parse_goodput(text: str, *, where: str = "--goodput") -> list[Objective]:
    """The short form peers use, limits in milliseconds, judged at P90: ``"ttft:400 tpot:40"``."""
    texts: list[Objective] = []
    for part in text.replace(",", " ").split():
        name, colon, limit = part.lower().partition(":")
        name = _ALIASES.get(name, name)
        if not colon or name not in REQUEST_METRICS:
            remedy = f"known: {', '.join(REQUEST_METRICS)}; write ttft:400 tpot:40"
            raise UsageError(f"'{part}' is not METRIC:MILLISECONDS", where=where, remedy=remedy)
        try:
            limit_ns = int(Decimal(limit) * NS_PER_MS)
        except (InvalidOperation, ValueError, OverflowError):
            limit_ns = 0
        if limit_ns <= 0:
            raise UsageError(f"'{limit}' in '{part}' is not a number of milliseconds above 0", where=where)
        texts.append(Objective(name, percentile=90.0, limit_ns=limit_ns))
    if not texts:
        raise UsageError("no objective given", where=where, remedy="write ttft:400 tpot:40")
    return texts
