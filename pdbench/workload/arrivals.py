"""The gaps between arrivals, as pure functions of uniform draws.

Every law is an inverse transform of one uniform draw a gap, at unit rate. So the same seed at twice the
rate has exactly half the gaps, the same seed at another burstiness keeps its order of short and long gaps,
and two arms (or two points of a rate sweep) differ by what is under test instead of by luck. Where the rate
changes over time the same unit gaps are put on a stretched clock (``curves``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from pdbench.units import NS_PER_S
from pdbench.workload.arrival_spec import CURVES, Arrivals
from pdbench.workload.curves import curve_of

Floats = npt.NDArray[np.float64]


def unit_gaps(process: str, uniforms: Floats, burstiness: float | None = None) -> Floats:
    """Gaps of mean 1 from uniform draws in [0, 1): shape [n] to shape [n].

    ``poisson``: -ln(1 - u). ``gamma``: the inverse gamma distribution of shape ``burstiness``, divided by it
    (vLLM's meaning of burstiness). ``constant``: ones.
    """
    if process == "constant":
        return np.ones_like(uniforms)
    if process == "poisson":
        return -np.log1p(-uniforms)
    if process == "gamma":
        shape = 1.0 if burstiness is None else burstiness
        return np.asarray(gammaincinv(shape, uniforms), dtype=np.float64) / shape
    raise ValueError(f"'{process}' has no law of gaps")


def offsets_us(arrivals: Arrivals, n: int, uniforms: Floats, *, requests_each: int = 1) -> Floats:
    """Due times of ``n`` arrivals in whole microseconds (as floats) from the start of the measured window; fewer
    where a curve ends. ``requests_each``: an arrival stands for so many requests, so it comes that much more seldom.

    Gaps are rounded to microseconds (on a curve: to millionths of a request) *before* they are summed: a last-place
    difference between two machines' logarithms then cannot change a plan, and its hash stays the same everywhere.
    """
    if arrivals.process == "closed":
        return np.zeros(n)
    if arrivals.process == "at":
        times = np.asarray(arrivals.times_ms or (), dtype=np.float64)[:n]
        return np.rint(times * 1e3)
    if arrivals.process in CURVES:
        gaps = unit_gaps(arrivals.gaps or "poisson", uniforms, arrivals.burstiness) * requests_each
        instants = curve_of(arrivals).instants_s(np.cumsum(np.rint(gaps * 1e6)) / 1e6)
        return np.rint(instants[np.isfinite(instants)] * 1e6)
    rate = (arrivals.rate or 1.0) / requests_each
    gaps = unit_gaps(arrivals.process, uniforms, arrivals.burstiness) / rate
    return np.cumsum(np.rint(gaps * 1e6))


def streams_of(arrivals: Arrivals, duration_s: float | None) -> tuple[tuple[int, int], ...]:
    """A closed loop as (from this ns, so many streams), with none from ``duration_s`` on; ``()`` for an open one."""
    if arrivals.process != "closed":
        return ()
    points = arrivals.points or ((0.0, float(arrivals.concurrency or 1)),)
    last_ns = None if duration_s is None else round(duration_s * NS_PER_S)
    steps = [(round(time * NS_PER_S), int(streams)) for time, streams in points]
    kept = [step for step in steps if last_ns is None or step[0] < last_ns]
    return tuple(kept) if last_ns is None else (*kept, (last_ns, 0))
