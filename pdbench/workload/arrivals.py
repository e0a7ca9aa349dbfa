"""The gaps between arrivals, as pure functions of uniform draws.

Every law is an inverse transform of one uniform draw a gap, at unit rate. So the same seed at twice the
rate has exactly half the gaps, the same seed at another burstiness keeps its order of short and long gaps,
and two arms (or two points of a rate sweep) differ by what is under test instead of by luck.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from pdbench.workload.spec import Arrivals

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


def offsets_us(arrivals: Arrivals, n: int, uniforms: Floats) -> Floats:
    """Due times of ``n`` requests in whole microseconds (as floats) from the start of the measured window.

    Gaps are rounded to microseconds *before* they are summed: a last-place difference between two machines'
    logarithms then cannot change a plan, and its hash stays the same everywhere.
    """
    if arrivals.process == "at":
        times = np.asarray(arrivals.times_ms or (), dtype=np.float64)[:n]
        return np.rint(times * 1e3)
    rate = arrivals.rate or 1.0
    gaps = unit_gaps(arrivals.process, uniforms, arrivals.burstiness) / rate
    return np.cumsum(np.rint(gaps * 1e6))
