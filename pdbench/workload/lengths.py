"""Token counts from uniform draws: one draw a request, inverse transforms, integers out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pdbench.workload.columns import read_column
from pdbench.workload.length_spec import Lengths

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]


def draw_lengths(law: Lengths, uniforms: Floats) -> Counts:
    """``int32[n]`` lengths of at least 1 token from ``n`` uniform draws in [0, 1).

    A ``list`` is read in order and starts again at its end (only warm-up requests can get there). ``empirical``:
    the smallest value whose share of the weight, summed over the sorted values, is above the draw. Raises
    ``UsageError`` for a file that cannot be read.
    """
    n = len(uniforms)
    if law.distribution == "fixed":
        return np.full(n, law.value, dtype=np.int32)
    if law.distribution == "list":
        return np.resize(np.asarray(law.values, dtype=np.int32), n)
    if law.distribution == "empirical":
        values, upto = _sample(law)
        return values[np.minimum(np.searchsorted(upto, uniforms, side="right"), len(values) - 1)]
    low, high = law.low or 1, law.high or 1
    if law.distribution == "uniform":
        picked = low + np.floor(uniforms * (high - low + 1))
    else:
        # ndtri is the inverse of the normal distribution; ndtri(0) is -inf, whose exp is 0: clipped to low.
        picked = np.rint((law.median or 1.0) * np.exp((law.sigma or 0.0) * _normal(uniforms)))
    clipped: Counts = np.clip(picked, low, high).astype(np.int32)
    return clipped


def longest(law: Lengths) -> int:
    """The longest length a law can give. Raises ``UsageError`` for a file that cannot be read."""
    if law.distribution == "empirical":
        return int(_sample(law)[0].max())
    return max(law.values) if law.values else int(law.value or law.high or 1)


def _normal(uniforms: Floats) -> Floats:
    tiny = np.finfo(np.float64).tiny
    return np.asarray(ndtri(np.maximum(uniforms, tiny)), dtype=np.float64)


def _sample(law: Lengths) -> tuple[Counts, Floats]:
    """Sorted values that can come up, and the share of the weight up to each."""
    if law.file is not None:
        values = _column(law.file, law.column, Path(law.file).stat().st_mtime_ns if Path(law.file).exists() else 0)
    else:
        values = np.asarray(law.values, dtype=np.int32)
    weights = np.ones(len(values)) if law.weights is None else np.asarray(law.weights, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    order = order[weights[order] > 0]
    upto = np.cumsum(weights[order])
    return values[order], upto / upto[-1]


@lru_cache(maxsize=8)
def _column(file: str, column: str | None, modified_ns: int) -> Counts:
    """A file is read once for all pairs of a call, and again when it has changed."""
    del modified_ns
    return np.asarray(read_column(Path(file), column), dtype=np.int32)
