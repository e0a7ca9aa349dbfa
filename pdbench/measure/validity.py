"""Whether the *measurement* can be trusted; the server's failures are results, not faults.

A run is VALID only if the client kept its schedule, its clock was finer than the limits it judges, every
scheduled request is accounted for, no load worker was lost, and every objective has something to judge.
Else the numbers are still written, but no verdict is given, and each reason says what to change.

A wrong VALID could arise where a stamp hides the client's own lateness. So the dispatch lag counts to the end of
the write (the process may lose its core between stamp and write); the probe's alarms stand for the instants at which
nothing was sent or read; a stamp shared by merged reads is trusted only as far as the client was quick; and a client
that mostly waits for its core is not believed at all (docs/metrics.md, "How a wrong VALID is kept out").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from pdbench.measure.attainment import attainment
from pdbench.measure.audit import Audit
from pdbench.measure.latency import Floats, gaps_ns, measured, percentile, request_metrics
from pdbench.measure.records import STATUSES
from pdbench.measure.slo import GAP_METRICS, Objective
from pdbench.units import NS_PER_MS, NS_PER_US, format_ms

Clock = Literal["kernel", "user", "virtual"]  # virtual: simulated, exact by construction

# An instrument should be an order of magnitude finer than what it judges; 5 % keeps its error out of the
# verdict.
LAG_BUDGET = 0.05
LAG_WITHOUT_LIMIT_NS = 5 * NS_PER_MS
# The kernel stamp's own error: P99 of 10-20 us was measured against a server with a known schedule, also
# beside a busy loop on the same core (docs/lab-notes.md).
KERNEL_ERROR_NS = 20 * NS_PER_US
# Up to this share of merged events, P99 is still the kernel stamp's own.
_MERGED_SHARE = 0.01
_REQUESTS_RIGHT = 95  # P90 over requests may be off if more than a tenth is; half of that, as a read's lag is a guess
# Beyond this share of reads without a stamp, P99 may be one of them.
_UNSTAMPED_SHARE = 0.01
# Two processes that want one core get half each. A client that had to wait for more than two thirds of the time in
# which it wanted to run got less than a fair share among three. If that made it late by more than a wake-up takes,
# its audit rests on the mercy of others, and a generous limit is no reason to believe it.
_WAIT_SHARE = 2 / 3
_WAIT_LAG_NS = 1 * NS_PER_MS
# A client that is busy this much of its worst 100 ms has no room for a burst: the lag is of its own making.
_BUSY_SHARE = 0.9
_WAITED_SHARE = 0.5  # from here on waiting is named as the cause


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a run is INVALID, and what to do."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Validity:
    """``VALID`` or ``INVALID`` with at least one reason."""

    status: Literal["VALID", "INVALID"] = "VALID"
    reasons: tuple[Reason, ...] = field(default=())

    def __post_init__(self) -> None:
        if (self.status == "VALID") == bool(self.reasons):
            raise ValueError("INVALID needs a reason, VALID has none")

    @property
    def valid(self) -> bool:
        return self.status == "VALID"

    def document(self) -> dict[str, Any]:
        """As the summary document holds it."""
        reasons = [{"message": r.message, "remedy": r.remedy} for r in self.reasons]
        return {"status": self.status, "reasons": reasons}


def of_reasons(reasons: Sequence[Reason]) -> Validity:
    """INVALID if there is any reason."""
    return Validity("INVALID", tuple(reasons)) if reasons else Validity()


def combine(arms: Mapping[str, Validity]) -> Validity:
    """The validity of a comparison: every arm's reasons, named by arm."""
    return of_reasons([Reason(f"{arm}: {r.message}", r.remedy) for arm, v in arms.items() for r in v.reasons])


def dispatch_lag_ns(requests: pd.DataFrame) -> Floats:
    """``sent - scheduled`` of the requests that were sent, up to the end of the write."""
    sent = requests["sent_ns"].to_numpy(dtype=np.float64, na_value=np.nan)
    lag = sent - requests["scheduled_ns"].to_numpy(dtype=np.float64)
    if "write_ns" in requests:  # not in runs stored by earlier versions
        lag += requests["write_ns"].to_numpy(dtype=np.float64)
    known: Floats = lag[~np.isnan(lag)]
    return known


def receive_lag_ns(requests: pd.DataFrame) -> Floats:
    """Userspace minus kernel stamp of every read, pooled; empty on the user clock."""
    reads = [np.asarray(lags, dtype=np.float64) for lags in requests["user_lag_ns"] if len(lags)]
    return np.concatenate(reads) if reads else np.zeros(0)


def judge(
    requests: pd.DataFrame,
    objectives: Sequence[Objective],
    clock: Clock,
    workers_lost: int | Sequence[str] = 0,
    *,
    tokens: pd.DataFrame,
    scheduled: int,
    interrupted: bool = False,
    max_concurrency: int | None = None,
    receive_lag_p99_ns: float | None = None,
    audit: Audit | None = None,
) -> Validity:
    """Judge one run, or the pooled runs of one arm.

    ``workers_lost``: their names, or how many. ``scheduled``: measured requests the plans hold (of a closed loop:
    that fell due). ``receive_lag_p99_ns``: what an event-loop probe saw, for the user clock. ``audit``: what the
    client measured of itself. Under ``max_concurrency`` waiting for a slot is part of ``sent - scheduled`` on
    purpose, so only the event loop's lag is judged.
    """
    kept, chunks = measured(requests, tokens)
    gaps = gaps_ns(chunks)
    reasons = _accounting(kept, scheduled, workers_lost, interrupted)
    reasons += _sending(kept if max_concurrency is None else kept.iloc[:0], objectives, audit)
    reasons += _receiving(kept, gaps, objectives, clock, receive_lag_p99_ns, audit)
    derived = request_metrics(kept, chunks)
    for objective in objectives if len(kept) else ():
        if math.isnan(attainment(derived, gaps, objective)):
            message = f"'{objective.text}' has nothing to judge: no completed request has a {objective.metric}"
            remedy = "drop the objective, or make the server stream more than one token-bearing chunk"
            reasons.append(Reason(message, remedy))
    return of_reasons(reasons)


def _accounting(
    kept: pd.DataFrame, scheduled: int, workers_lost: int | Sequence[str], interrupted: bool
) -> list[Reason]:
    reasons = []
    if interrupted:
        reasons.append(Reason("the run was interrupted", "run it to its end, or ask for fewer requests"))
    if workers_lost:
        count, names = (
            (workers_lost, "") if isinstance(workers_lost, int) else (len(workers_lost), ", ".join(workers_lost))
        )
        what = f"{count} load worker{'s' if count > 1 else ''} lost during the run{f': {names}' if names else ''}"
        reasons.append(Reason(what, "see the worker's last lines, then run again"))
    known = int(kept["status"].isin(STATUSES).sum())
    if known != scheduled:
        message = f"{scheduled} requests were scheduled but {known} are accounted for"
        reasons.append(Reason(message, "run again; if it repeats, add a worker or lower the rate"))
    if scheduled == 0:
        reasons.append(Reason("no request was scheduled", "raise --num-requests or --duration"))
    return reasons


def _sending(kept: pd.DataFrame, objectives: Sequence[Objective], audit: Audit | None) -> list[Reason]:
    """Whether requests left in time: by those that left, and by the alarms that stand for all other instants."""
    limits = [o.limit_ns for o in objectives if o.metric == "ttft" and o.limit_ns]
    budget = LAG_BUDGET * min(limits) if limits else LAG_WITHOUT_LIMIT_NS
    against = f"5 % of the TTFT limit, {format_ms(budget)}" if limits else format_ms(budget)
    lag, loop = percentile(dispatch_lag_ns(kept), 99), _loop_lag_ns(audit)
    if lag > budget:
        message = f"requests left late: dispatch lag P99 {format_ms(lag)} exceeds {against}"
    elif loop > budget:
        message = f"the client was late: event loop lag P99 {format_ms(loop)} exceeds {against}"
    elif _wait_share(audit) > _WAIT_SHARE and loop > _WAIT_LAG_NS:
        message = f"the client was late: event loop lag P99 {format_ms(loop)}"
    else:
        return []
    return [Reason(f"{message}{_cause(audit)}", _remedy(audit))]


def _loop_lag_ns(audit: Audit | None) -> float:
    return audit.loop_lag_ms.p99 * NS_PER_MS if audit is not None and audit.loop_lag_ms is not None else 0.0


def _wait_share(audit: Audit | None) -> float:
    return audit.cpu_wait_share or 0.0 if audit is not None else 0.0


def _busy_share(audit: Audit | None) -> float:
    return audit.cpu_share.p99 if audit is not None and audit.cpu_share is not None else 0.0


def _cause(audit: Audit | None) -> str:
    """What the audit says of why."""
    if _busy_share(audit) > _BUSY_SHARE:
        return f"; it used {100 * _busy_share(audit):.0f} % of a core at P99"
    if _wait_share(audit) >= _WAITED_SHARE:
        return f"; it had to wait for the processor {100 * _wait_share(audit):.0f} % of the time it wanted to run"
    return ""


def _remedy(audit: Audit | None, clock: str = "kernel") -> str:
    """First what the cause suggests."""
    first = "use --clock kernel, " if clock == "user" else ""
    if _busy_share(audit) > _BUSY_SHARE:
        return f"{first}add a worker (--processes 2), or lower the rate"
    if _wait_share(audit) >= _WAITED_SHARE:
        return f"{first}free a core for the client: other processes ran on it"
    return f"{first}free a core for the client, add a worker (--processes 2), or lower the rate"


def _receiving(
    kept: pd.DataFrame,
    gaps: Floats,
    objectives: Sequence[Objective],
    clock: str,
    probe_p99_ns: float | None,
    audit: Audit | None,
) -> list[Reason]:
    if len(gaps) and gaps.min() < 0:
        return [Reason("receive stamps go backwards", "use --clock user and report the machine's clock source")]
    limits = [o.limit_ns for o in objectives if o.metric in GAP_METRICS and o.limit_ns]
    budget = LAG_BUDGET * min(limits) if limits else LAG_WITHOUT_LIMIT_NS
    if clock == "kernel" and audit is not None and audit.unstamped_share > _UNSTAMPED_SHARE:
        what = f"{100 * audit.unstamped_share:.1f} % of the reads came without the kernel's stamp"
        return [Reason(what, "use --clock user: this system does not stamp reliably")]
    error = receive_error_ns(kept, clock, probe_p99_ns, audit)
    if error is not None and any(o.metric == "worst_gap" for o in objectives):
        error = max(error, _worst_gap_error_ns(kept))
    if error is None:
        remedy = "use --clock kernel where the connection is plain TCP on Linux"
        return [Reason("the client's receive lag was not measured", remedy)]
    if error <= budget:
        return []
    if clock == "kernel" and audit is not None and error <= audit.clock_drift_us * NS_PER_US:
        message = f"the clock moved by {format_ms(error)} during the run, and the receive stamps with it"
        return [Reason(message, "keep the time of day from being set during a run, or use --clock user")]
    against = f"5 % of the tightest gap limit, {format_ms(budget)}" if limits else format_ms(budget)
    message = f"tokens were stamped late: receive error P99 {format_ms(error)} exceeds {against}"
    return [Reason(f"{message}{_cause(audit)}", _remedy(audit, clock))]


def _worst_gap_error_ns(kept: pd.DataFrame) -> float:
    """By how much the worst gap of one request in twenty may be too long; 0 where nothing says so.

    One event in a hundred is half of all requests, if each has fifty: the worst gap picks the merged read out. It is
    too long at most, never too short (a merged read's events are put together at the last one's arrival), and only
    where the client was late: several events that a server writes at once come together, and their stamp is right.
    """
    if "worst_gap_lag_ns" not in kept:  # in runs stored by earlier versions
        return 0.0
    lag = percentile(kept.loc[kept["status"] == "ok", "worst_gap_lag_ns"].to_numpy(dtype=np.float64), _REQUESTS_RIGHT)
    return 0.0 if math.isnan(lag) else lag


def receive_error_ns(
    kept: pd.DataFrame, clock: str, probe_p99_ns: float | None = None, audit: Audit | None = None
) -> float | None:
    """P99 error of the receive stamps; ``None`` when unknown.

    On the kernel clock it is the stamp's own error, or what the clock's offset moved by if that is more, unless more
    than 1 % of the events, of all runs or of the worst one, came in merged reads: their stamp is the last segment's
    (Linux keeps one stamp for segments that it joined, so reading less at a time would not help). An event came at most
    as long before the stamp as the client was late to read it, and by how much that was, its reads and its alarms say.

    On the user clock it is the lag of the alarms and that of the later reads of one wake-up, one on top of the other.
    """
    if clock == "virtual":
        return 0.0
    wake = audit.wake_lag_ms if audit is not None else None
    if clock == "user":
        return None if probe_p99_ns is None else probe_p99_ns + (wake.p99 * NS_PER_MS if wake is not None else 0.0)
    own = max(float(KERNEL_ERROR_NS), audit.clock_drift_us * NS_PER_US if audit is not None else 0.0)
    if _merged_share(kept, audit) <= _MERGED_SHARE:
        return own
    lags = [percentile(receive_lag_ns(kept), 99)]
    if audit is not None and audit.kernel_lag_ms is not None:
        lags.append(audit.kernel_lag_ms.p99 * NS_PER_MS)
    known = [lag for lag in lags if not math.isnan(lag)]
    return max(*known, _loop_lag_ns(audit), own) if known else None


def _merged_share(kept: pd.DataFrame, audit: Audit | None) -> float:
    """Of all events, or of those of the worst run if that is more: a good run does not make up for a bad one."""
    events = float(kept["chunks"].sum())
    pooled = float(kept["merged_events"].sum()) / events if events and "merged_events" in kept else 0.0
    return max(pooled, audit.merged_share if audit is not None else 0.0)
