"""What can be said of an arm while its requests still come back: percentiles, attainment, and how they went. Pure.

    state = ArmState("disaggregated", objectives)
    state.begin(0, plan_offsets_ns, at_s=1.2)
    point = state.take(delta, at_s=2.2)          # one second of its course
    state.judged()                               # each objective so far: met, missed or undecided

Everything comes from the engine's deltas; the time is an argument. A request that failed has an infinite latency, as in
the document. Requests are judged when they end, so early on the slow ones are missing: a live figure flatters.
Verdicts come from the raw records when the run is over.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pdbench.load.histogram import LiveHistogram
from pdbench.measure.slo import ERRORS, Objective
from pdbench.units import NS_PER_MS

if TYPE_CHECKING:
    from pdbench.load.delta import Delta, Done

WINDOW_S = 10.0
"""What a point of the course looks back on: a second holds too few requests to take a P90 from."""

JUDGED_LIVE = ("ttft", "tpot", "worst_gap", "e2e")
Point = dict[str, float | None]
SERVER_COLUMNS = ("queue_prefill", "queue_decode", "busy_prefill", "busy_decode")
COLUMNS = (
    "t", "joint", "ttft50", "ttft90", "tbt50", "tbt90", "planned", "due", "sent", "done", *SERVER_COLUMNS,
)  # fmt: skip
"""Of a point: seconds since the call began; shares; ms (``math.inf`` where too many failed); counts of the run that is
going."""


def values_ms(done: Done) -> dict[str, float | None]:
    """What one ended request had of each live metric; infinite where it failed, None where a metric does not apply."""
    if done.status != "ok":
        return dict.fromkeys(JUDGED_LIVE, math.inf)
    return {"ttft": done.ttft_ms, "tpot": done.tpot_ms, "worst_gap": done.worst_gap_ms, "e2e": done.e2e_ms}


def keeps(done: Done, objective: Objective) -> bool | None:
    """Whether it keeps the limit; None where that does not apply to it or is only known when the run is over."""
    if objective.metric == ERRORS:
        return done.status == "ok"
    value = values_ms(done).get(objective.metric)
    if value is None or objective.limit_ns is None:
        return None
    return value <= objective.limit_ns / NS_PER_MS


def keeps_all(done: Done, objectives: Iterable[Objective]) -> bool:
    """Whether it ended well and within every limit on a single request that is known by now."""
    return done.status == "ok" and all(keeps(done, one) is not False for one in objectives if one.per_request)


def percentiles_ms(ended: LiveHistogram, failed: int, *quantiles: float) -> list[float | None]:
    """Nearest-rank percentiles over values and ``failed`` requests, which are infinite; None where there is neither.

    ``quantiles`` in (0, 100]. The rule is that of ``measure.latency.percentile``.
    """
    known = ended.count
    if not known + failed:
        return [None for _ in quantiles]
    ranks = [max(1, math.ceil(round(q * (known + failed) / 100, 9))) for q in quantiles]
    found = ended.percentiles_ms(*(100 * rank / known for rank in ranks if rank <= known)) if known else []
    return [*found, *[math.inf] * (len(ranks) - len(found))]


class Judged(NamedTuple):
    """One objective so far. ``share``: of the requests (gaps) that ended; ``interval``: Wilson's, 95 %, as if requests
    were independent; ``word``: met, missed, undecided, or later (only the records can tell)."""

    text: str
    share: float | None
    interval: tuple[float, float] | None
    requests: int
    word: str


class ArmState:
    """One arm over all runs of a call. ``state``: waiting, starting, ready, running, complete, interrupted, died..."""

    def __init__(self, name: str, objectives: Sequence[Objective]) -> None:
        self.name = name
        self.objectives = list(objectives)
        self.state = "waiting"
        self.pair, self.pairs = 0, 1
        self.total = self.done = self.failed = self.in_flight = 0
        self.ended = self.failed_measured = self.deltas = 0
        self.ttft, self.tpot, self.tbt = LiveHistogram(), LiveHistogram(), LiveHistogram()
        self.dispatch_p99_ms: float | None = None
        self.client_p99_ms: float | None = None
        self._joint = 0
        self._kept = [[0, 0] for _ in self.objectives]
        self._plan_ns: Sequence[int] = ()
        self._recent: deque[_Second] = deque()

    def begin(self, pair: int, plan_ns: Sequence[int], at_s: float) -> Point:
        """A run begins: ``plan_ns`` are its due instants from t0. The point breaks the lines of its course."""
        self.pair, self.state = pair, "running"
        self.total, self.done, self.failed, self.in_flight = len(plan_ns), 0, 0, 0
        self._plan_ns = plan_ns
        self._recent.clear()
        return {**dict.fromkeys(COLUMNS), "t": round(at_s, 3)}

    def take(self, delta: Delta, at_s: float, server: Mapping[str, float] | None = None) -> Point:
        """What came with one delta. ``server``: what it said of its queues and devices a moment ago."""
        self.deltas += 1
        self.done, self.failed, self.in_flight = delta.ok + delta.failed, delta.failed, delta.in_flight
        self.dispatch_p99_ms = _larger(self.dispatch_p99_ms, delta.dispatch_lag.p99_ms)
        self.client_p99_ms = _larger(self.client_p99_ms, delta.client_lag.p99_ms)
        self.ttft.merge(delta.ttft_hdr)
        self.tbt.merge(delta.tbt_hdr)
        measured = [one for one in delta.done if not one.warmup]
        failed = sum(one.status != "ok" for one in measured)
        good = [self._judge(one) for one in measured]
        self._recent.append(_Second(at_s, delta.ttft_hdr, delta.tbt_hdr, good, failed))
        while self._recent[0].at_s <= at_s - WINDOW_S:
            self._recent.popleft()
        return self._point(delta, at_s, server or {})

    def _judge(self, done: Done) -> bool:
        self.ended += 1
        self.failed_measured += done.status != "ok"
        if done.tpot_ms is not None:
            self.tpot.add_ns([round(done.tpot_ms * NS_PER_MS)])
        for count, objective in zip(self._kept, self.objectives, strict=True):
            kept = keeps(done, objective)
            if kept is not None:
                count[0] += kept
                count[1] += 1
        good = keeps_all(done, self.objectives)
        self._joint += good
        return good

    def _point(self, delta: Delta, at_s: float, server: Mapping[str, float]) -> Point:
        ttft, tbt, good, failed = LiveHistogram(), LiveHistogram(), [], 0
        for one in self._recent:
            ttft.merge(one.ttft_hdr)
            tbt.merge(one.tbt_hdr)
            good += one.good
            failed += one.failed
        values: list[float | None] = [
            round(at_s, 3),
            sum(good) / len(good) if good else None,
            *percentiles_ms(ttft, failed, 50.0, 90.0),
            *percentiles_ms(tbt, _no_gaps(tbt, failed, len(good)), 50.0, 90.0),
            float(bisect_right(self._plan_ns, int(delta.t_s * 1e9))) if self._plan_ns else None,
            float(delta.offered),
            float(delta.sent),
            float(delta.ok + delta.failed),
            *(server.get(name) for name in SERVER_COLUMNS),
        ]
        return dict(zip(COLUMNS, values, strict=True))

    # ---- so far

    def spreads_ms(self) -> dict[str, list[float | None]]:
        """P50, P90 and P99 of TTFT, TPOT and TBT over all measured requests that ended, infinite where too many failed.
        Gaps are those of all streams, also of requests that failed later; infinite only where all failed."""
        failed = self.failed_measured
        kinds = {
            "ttft": (self.ttft, failed),
            "tpot": (self.tpot, failed),
            "tbt": (self.tbt, _no_gaps(self.tbt, failed, self.ended)),
        }
        return {name: percentiles_ms(found, without, 50.0, 90.0, 99.0) for name, (found, without) in kinds.items()}

    def joint(self) -> Judged:
        """Requests that ended well within every limit on single requests. No objective asks for a share of it."""
        share = self._joint / self.ended if self.ended else None
        interval = _wilson(share, self.ended)
        return Judged("all limits at once", share, interval, self.ended, "")

    def judged(self) -> list[Judged]:
        """Every objective, in order."""
        return [self._judged(number) for number in range(len(self.objectives))]

    def _judged(self, number: int) -> Judged:
        objective = self.objectives[number]
        kept, known = self._kept[number]
        share, requests = (kept / known if known else None), known
        if objective.metric == "tbt" and objective.limit_ns is not None:
            # Gaps of one request are alike: how sure one can be goes by the requests.
            share, requests = self.tbt.share_within_ms(objective.limit_ns / NS_PER_MS), self.ended
        elif objective.metric not in (*JUDGED_LIVE, ERRORS):
            return Judged(objective.text, None, None, 0, "later")
        interval = _wilson(share, requests)
        word = "undecided"
        if interval is not None:
            low, high = interval
            word = "met" if low >= objective.share else "missed" if high < objective.share else word
        return Judged(objective.text, share, interval, requests, word)

    def late(self) -> str:
        """Why it will be INVALID if it goes on like this; ``""`` while the client keeps its schedule."""
        from pdbench.measure.validity import LAG_BUDGET, LAG_WITHOUT_LIMIT_NS

        limits = [one.limit_ns for one in self.objectives if one.metric == "ttft" and one.limit_ns]
        budget_ms = (LAG_BUDGET * min(limits) if limits else LAG_WITHOUT_LIMIT_NS) / NS_PER_MS
        lag = self.dispatch_p99_ms
        if lag is None or lag <= budget_ms:
            return ""
        return f"requests left late: dispatch lag P99 {lag:.3g} ms exceeds {budget_ms:.3g} ms"


class _Second(NamedTuple):
    """What one delta brought of measured requests: ``good``: whether each kept all limits."""

    at_s: float
    ttft_hdr: str
    tbt_hdr: str
    good: list[bool]
    failed: int


def _no_gaps(tbt: LiveHistogram, failed: int, ended: int) -> int:
    """How many infinite gaps there are: one, where all requests failed before they had any."""
    return int(failed == ended > 0 and not tbt.count)


def _larger(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _wilson(share: float | None, requests: int) -> tuple[float, float] | None:
    from pdbench.stats.proportions import wilson

    return wilson(share, requests) if share is not None and requests else None
