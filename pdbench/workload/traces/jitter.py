"""Stamps on a grid, spread over their cell.

A trace whose stamps were rounded to whole seconds, replayed as it stands, is a herd at every tick with silence between:
a load that nobody offered. So each row of such a trace is moved by a uniform, seeded draw within its quantum; what was
done is part of the resolved workload (``jitter: 3s``) and said in the progress and the manifest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pdbench.units import NS_PER_MS

Ints = npt.NDArray[np.int64]
_CELLS = 50
_SLACK = 0.01


def quantum_ns(stamps_ns: Ints) -> int:
    """The cell of the coarsest grid that sorted stamps lie on. 0 where more than half as many stamps as rows differ, or
    where there is no grid above 1 ms: rows that share a stamp are then a burst that happened, not rounding. int64[n]
    to ns."""
    distinct = np.unique(stamps_ns)
    if len(distinct) < 2 or 2 * len(distinct) > len(stamps_ns):
        return 0
    steps = np.sort(np.diff(distinct))
    middle = int(steps[len(steps) // 2])
    # The middle step is one cell or a few; where it is very many, only a grid without any noise can be told.
    cells = (*(middle // few for few in range(1, _CELLS + 1)), int(np.gcd.reduce(steps)))
    return next((cell for cell in cells if cell > NS_PER_MS and _lie_on(steps, cell)), 0)


def _lie_on(steps_ns: Ints, cell: int) -> bool:
    """Whether all but a few steps are whole cells, give or take a little: Mooncake's are 3 s, often less 1 ms."""
    over = steps_ns % cell
    return bool(np.mean(np.minimum(over, cell - over) <= _SLACK * cell) >= 1 - _SLACK)


def jittered(stamps_ns: Ints, quantum: int, uniforms: npt.NDArray[np.float64]) -> Ints:
    """Each stamp moved to a uniform place in the ``quantum`` that begins with it, in whole us. Not sorted."""
    moved: Ints = stamps_ns + np.floor(uniforms * (quantum / 1e3)).astype(np.int64) * 1000
    return moved
