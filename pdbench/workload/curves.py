"""A rate that changes over time, and the exact inverse of its integral.

Arrivals with rate r(t) are arrivals at rate 1 on a stretched clock: with L(t) the integral of r from 0 to t, and
m_1 < m_2 < ... arrivals at unit rate, the instants L^-1(m_i) are arrivals at rate r(t) (time rescaling: Cinlar,
Introduction to Stochastic Processes, 1975, ch. 4; Daley and Vere-Jones, An Introduction to the Theory of Point
Processes, 2nd ed., theorem 7.4.I). With exponential unit gaps that is the non-homogeneous Poisson process.

Rates are linear between points, so L is quadratic there and its inverse exact; a sine is cut into 1,024 straight
pieces a period, which is never off by more than 5e-6 of its swing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pdbench.workload.arrival_spec import Arrivals
from pdbench.workload.checks import seconds

Floats = npt.NDArray[np.float64]
_PIECES = 1024


class Curve:
    """Requests/s over time: linear between ``(times_s[i], rates[i])`` (two points at one instant are a jump), then
    the last rate for ever, or all over again every ``period_s``."""

    def __init__(self, times_s: npt.ArrayLike, rates: npt.ArrayLike, period_s: float | None = None) -> None:
        t, r = np.asarray(times_s, dtype=np.float64), np.asarray(rates, dtype=np.float64)
        real = np.diff(t) > 0
        spans = np.diff(t)[real]
        # One piece more than the points make: the last rate, for ever.
        self._start = np.append(t[:-1][real], t[-1])
        self._first = np.append(r[:-1][real], r[-1])
        self._slope = np.append((r[1:][real] - r[:-1][real]) / spans, 0.0)
        self._before = np.append(0.0, np.cumsum(spans * (r[:-1][real] + r[1:][real]) / 2))
        self._period_s = period_s

    @property
    def total(self) -> float:
        """How many requests arrive in all; inf unless the last rate is 0."""
        return math.inf if self._period_s is not None or self._first[-1] > 0 else float(self._before[-1])

    def expected(self, t_s: float) -> float:
        """L(t): the number of requests to expect up to ``t_s``."""
        if self._period_s is not None:
            whole, rest = divmod(t_s, self._period_s)
            return float(whole * self._before[-1] + self._within(rest))
        return self._within(t_s)

    def _within(self, t_s: float) -> float:
        at = max(0, int(np.searchsorted(self._start, t_s, side="right")) - 1)
        x = t_s - self._start[at]
        return float(self._before[at] + self._first[at] * x + self._slope[at] * x * x / 2)

    def instants_s(self, mass: Floats) -> Floats:
        """L^-1: the first instant by which ``mass`` requests are expected; inf beyond ``total``. float64[n] to
        float64[n]."""
        if self._period_s is None:
            return self._invert(mass)
        each = self._before[-1]
        whole = np.maximum(0.0, np.ceil(mass / each) - 1)
        return np.asarray(whole * self._period_s + self._invert(np.clip(mass - whole * each, 0.0, each)))

    def _invert(self, mass: Floats) -> Floats:
        at = np.maximum(0, np.searchsorted(self._before, mass, side="left") - 1)
        rest = mass - self._before[at]
        first, slope = self._first[at], self._slope[at]
        # The root of first x + slope x^2 / 2 = rest in the form that loses no digits and takes slope = 0 as well.
        root = first + np.sqrt(np.maximum(first * first + 2 * slope * rest, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.where(rest > 0, 2 * rest / root, 0.0)
        return np.asarray(self._start[at] + x, dtype=np.float64)


def curve_of(arrivals: Arrivals) -> Curve:
    """The curve of a ramp, step, spike, diurnal or curve process. Raises ``ValueError`` for any other."""
    a, rate, first, last = arrivals, arrivals.rate or 0.0, arrivals.from_ or 0.0, arrivals.to or 0.0
    if a.process == "ramp":
        return Curve([0, seconds("over", a.over)], [first, last])
    if a.process == "step":
        at = seconds("at", a.at)
        return Curve([0, at, at], [first, first, last])
    if a.process == "spike":
        at, peak = seconds("at", a.at), a.peak or 0.0
        end = at + seconds("lasting", a.lasting)
        return Curve([0, at, at, end, end], [rate, rate, peak, peak, rate])
    if a.process == "diurnal":
        return _sine(rate, a.swing or 0.0, seconds("period", a.period))
    if a.process != "curve":
        raise ValueError(f"'{a.process}' has no curve")
    times, rates = (list(column) for column in zip(*(a.points or ()), strict=True))
    if a.interpolate == "step":
        times = [times[0], *(time for time in times[1:] for _ in range(2))]
        rates = [rate for rate in rates[:-1] for _ in range(2)] + [rates[-1]]
    return Curve(times, rates)


def whole_s(arrivals: Arrivals) -> float | None:
    """How long a curve takes to show all of itself: a ramp to arrive, a step or spike to be over for as long as it
    took to get there, a day to end, points to reach the last. ``None`` for a single point."""
    if arrivals.process == "ramp":
        return seconds("over", arrivals.over)
    if arrivals.process == "step":
        return 2 * seconds("at", arrivals.at)
    if arrivals.process == "spike":
        return 2 * (seconds("at", arrivals.at) + seconds("lasting", arrivals.lasting))
    if arrivals.process == "diurnal":
        return seconds("period", arrivals.period)
    return (arrivals.points or ((0.0, 0.0),))[-1][0] or None


def _sine(mean: float, swing: float, period_s: float) -> Curve:
    turn = np.arange(_PIECES + 1) / _PIECES
    # Rounded, so that two machines' sines are one curve.
    sine = np.round(np.sin(2 * math.pi * turn), 12)
    return Curve(turn * period_s, mean * (1 + swing * sine), period_s)
