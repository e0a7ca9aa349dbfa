"""Was the run in a steady state? Warnings only: they tell a reader where not to trust an average.

A queue that starts empty needs time to fill (initial transient), and one that is offered more than it can
serve never stops growing (saturation). Both make "the P90" depend on how long the run was. Two standard
tests look for them; a short run, a ramp or a trace is not steady by design and is not judged.

    for warning in steady_warnings(scheduled_ns, end_ns, latency_ns, "poisson"):
        print(warning.message)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pdbench.stats.laws import mann_kendall
from pdbench.stats.paired import Floats

Kind = Literal["not steady", "saturated"]

# With fewer, MSER-5 has under 20 batches to choose from and the queue under one request a sample.
LEAST_REQUESTS = 100
JUDGED = ("poisson", "constant", "gamma")
MSER_BATCH = 5
# Long against the queue's memory in all but saturated runs, so that batch means are nearly independent.
TREND_BATCHES = 10
_SAMPLES_PER_BATCH = 20
TREND_LEVEL = 0.01
# Less than this share at the start moves an average by little.
_DROP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class SteadyWarning:
    """What was seen, and what to do about it."""

    kind: Kind
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Truncation:
    """``drop``: leading values to leave out. ``found`` is False where the minimum lies in the second half: the
    series then has no steady part to speak of, and ``drop`` is half of it."""

    drop: int
    found: bool


@dataclass(frozen=True, slots=True)
class Trend:
    """Kendall's tau of batch means against time, its one-sided p-value for "rising", and the means of the
    first and the last third of the batches."""

    tau: float
    p_rising: float
    early: float
    late: float


def mser5(values: npt.ArrayLike) -> Truncation:
    """The number of leading values whose removal leaves the narrowest mean: MSER-5.

    Batches of five; the truncation d that minimises ``sum((z_i - mean(z_d..))**2) / (n - d)**2`` over the
    first half (White, Simulation 69, 1997; White, Cobb & Spratt, WSC 2000). ``ValueError`` under 10 batches.
    """
    series = np.asarray(values, dtype=np.float64).ravel()
    n = len(series) // MSER_BATCH
    if n < 10 or not np.isfinite(series).all():
        raise ValueError("MSER-5 needs at least 50 finite values")
    batches = series[: n * MSER_BATCH].reshape(n, MSER_BATCH).mean(axis=1)
    # The last few truncations leave so little that their variance is small by chance: as usual, leave them out.
    batches = batches - batches.mean()
    left = n - np.arange(n - 5)
    sums = np.cumsum(batches[::-1])[::-1][: n - 5]
    squares = np.cumsum(batches[::-1] ** 2)[::-1][: n - 5]
    statistic = np.maximum(squares - sums**2 / left, 0.0) / left.astype(np.float64) ** 2
    best = int(np.argmin(statistic))
    if best > n // 2:
        return Truncation(n // 2 * MSER_BATCH, found=False)
    return Truncation(best * MSER_BATCH, found=True)


def in_system(start_ns: npt.ArrayLike, end_ns: npt.ArrayLike, at_ns: npt.ArrayLike) -> Floats:
    """How many requests are in the system at each instant: due and not yet ended. NaN end: it never ends."""
    starts = np.sort(np.asarray(start_ns, dtype=np.float64))
    ends = np.asarray(end_ns, dtype=np.float64)
    ends = np.sort(np.where(np.isnan(ends), np.inf, ends))
    at = np.asarray(at_ns, dtype=np.float64)
    return np.asarray(
        np.searchsorted(starts, at, side="right") - np.searchsorted(ends, at, side="right"), dtype=np.float64
    )


def queue_trend(start_ns: npt.ArrayLike, end_ns: npt.ArrayLike, batches: int = TREND_BATCHES) -> Trend:
    """Does the number in the system rise over the arrival window? The Mann-Kendall test (Mann, Econometrica 13,
    1945; Kendall 1975) on means over ``batches`` equal stretches of time."""
    starts = np.asarray(start_ns, dtype=np.float64)
    if len(starts) < batches or batches < 6:
        raise ValueError("needs at least 6 batches and a request for each")
    low, high = float(starts.min()), float(starts.max())
    count = batches * _SAMPLES_PER_BATCH
    at = low + (np.arange(count) + 0.5) * (high - low) / count
    means = in_system(starts, end_ns, at).reshape(batches, _SAMPLES_PER_BATCH).mean(axis=1)
    third = batches // 3
    early, late = float(means[:third].mean()), float(means[-third:].mean())
    if np.ptp(means) == 0:
        return Trend(0.0, 1.0, early, late)
    found = mann_kendall(means)
    return Trend(found.tau, found.p_rising, early, late)


def steady_warnings(
    scheduled_ns: npt.ArrayLike, end_ns: npt.ArrayLike, latency_ns: npt.ArrayLike, process: str
) -> tuple[SteadyWarning, ...]:
    """What a reader of this run's averages should know. Empty for runs that are not judged.

    One entry a measured request, in order of arrival; NaN or inf where it did not complete. ``process``: the
    arrival process's name in the workload; only stationary ones are judged.
    """
    latency = np.asarray(latency_ns, dtype=np.float64).ravel()
    known = latency[np.isfinite(latency)]
    if process not in JUDGED or len(latency) < LEAST_REQUESTS:
        return ()
    found: list[SteadyWarning] = []
    trend = queue_trend(scheduled_ns, end_ns)
    # A queue that doubles over the run and still grows: a trend too small to matter is not worth a warning.
    if trend.p_rising < TREND_LEVEL and trend.late > 2 * trend.early + 1:
        message = f"the queue grew all along: {trend.early:.1f} requests at first, {trend.late:.1f} at the end"
        found.append(SteadyWarning("saturated", message, "lower the rate: more is offered than can be served"))
    if len(known) >= LEAST_REQUESTS and not found:
        found += _transient(known)
    return tuple(found)


def _transient(known: Floats) -> list[SteadyWarning]:
    """MSER-5 always names a minimum, in correlated latencies often a late one by chance (in 4 of 10 steady runs
    of the toy server it would drop over a quarter). So it is heard only where a trend test agrees."""
    size = len(known) // TREND_BATCHES
    means = known[-size * TREND_BATCHES :].reshape(TREND_BATCHES, size).mean(axis=1)
    if np.ptp(means) == 0 or mann_kendall(means).p_two_sided >= TREND_LEVEL:
        return []
    cut = mser5(known)
    if not cut.found:
        message = "the latencies never settled (MSER-5 would drop half of the run)"
        return [SteadyWarning("not steady", message, "run longer, or lower the rate")]
    if cut.drop <= _DROP_SHARE * len(known):
        return []
    message = f"the first {cut.drop} of {len(known)} requests differ from the rest (MSER-5)"
    return [SteadyWarning("not steady", message, "raise warmup, or run longer")]
