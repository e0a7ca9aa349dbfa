"""Token counts from uniform draws: one draw a request, inverse transforms, integers out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pdbench.workload.spec import Lengths


def draw_lengths(law: Lengths, uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """``int32[n]`` lengths of at least 1 token from ``n`` uniform draws in [0, 1).

    A ``list`` is read in order and starts again at its end (only warm-up requests can get there).
    """
    n = len(uniforms)
    if law.distribution == "fixed":
        return np.full(n, law.value, dtype=np.int32)
    if law.distribution == "list":
        return np.resize(np.asarray(law.values, dtype=np.int32), n)
    low, high = law.low or 1, law.high or 1
    if law.distribution == "uniform":
        picked = low + np.floor(uniforms * (high - low + 1))
    else:
        # ndtri is the inverse of the normal distribution; ndtri(0) is -inf, whose exp is 0: clipped to low.
        picked = np.rint((law.median or 1.0) * np.exp((law.sigma or 0.0) * _normal(uniforms)))
    clipped: npt.NDArray[np.int32] = np.clip(picked, low, high).astype(np.int32)
    return clipped


def _normal(uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    tiny = np.finfo(np.float64).tiny
    return np.asarray(ndtri(np.maximum(uniforms, tiny)), dtype=np.float64)
