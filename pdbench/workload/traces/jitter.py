"""Stamps on a grid, spread over their cell.

A trace whose stamps were rounded to whole seconds, replayed as it stands, is a herd at every tick with silence between:
a load that nobody offered. So each row of such a trace is moved by a uniform, seeded draw within its quantum; what was
done is part of the resolved workload (``jitter: 3s``) and said in the progress and the manifest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def quantum_ns(stamps_ns: Ints) -> int:
    """The cell of the grid that sorted stamps lie on: the median step between different ones, if there are at most
    half as many different stamps as rows; else 0. int64[n] to ns."""
    distinct = np.unique(stamps_ns)
    if len(distinct) < 2 or 2 * len(distinct) > len(stamps_ns):
        return 0
    return int(np.median(np.diff(distinct)))


def jittered(stamps_ns: Ints, quantum: int, uniforms: npt.NDArray[np.float64]) -> Ints:
    """Each stamp moved to a uniform place in the ``quantum`` that begins with it, in whole us. Not sorted."""
    moved: Ints = stamps_ns + np.floor(uniforms * (quantum / 1e3)).astype(np.int64) * 1000
    return moved
