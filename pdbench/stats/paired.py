"""Paired comparison of two arms: one frozen plan a pair, one value a run, Student's t over pairs.

Latencies inside one run are correlated through the queue, so a request is not a sample; a run is. Replaying
one plan to both arms removes most of what differs between runs, and what is left, ``y_j``, is one number a
pair. **Positive always means that the head is worse**: ``ln(P90_head) - ln(P90_base)`` for latencies,
``attainment_base - attainment_head`` for attainment.

    compare_pairs(np.array([0.31, 0.36, 0.38]), scale="log_ratio", margin=0.10).verdict   # "worse"
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pdbench.stats.laws import t_ppf, t_sf

Scale = Literal["log_ratio", "difference"]
Verdict = Literal["better", "worse", "equivalent", "not resolved"]
Floats = npt.NDArray[np.float64]
Runs = Sequence[Mapping[str, Any]]

# Power of the minimum detectable effect: a one-sided test at 1 % that finds it in 90 % of comparisons.
_MDE_LEVEL, _MDE_POWER = 0.99, 0.90
# Equivalence is two one-sided tests at this error, whatever the level of the interval (Schuirmann 1987).
_TOST_ERROR = 0.05
# With fewer pairs an exact sign-flip test cannot reach 1 % (2 / 2**7 = 1.6 %).
SIGN_FLIP_PAIRS = 8
_ENUMERATED_PAIRS = 16
# A stamp is no finer than this; it also keeps the logarithm of a zero gap finite.
_RESOLUTION_MS = 1e-3

PRIMARY = "joint_attainment"
MARGINS: dict[str, float] = {
    PRIMARY: 0.02,
    "ttft_p90": 0.10,
    "tpot_p90": 0.05,
    "tbt_p90": 0.05,
    "worst_gap_p90": 0.05,
    "e2e_p90": 0.10,
}


@dataclass(frozen=True, slots=True)
class PairedResult:
    """``effect`` is the mean of y (±inf when a percentile is infinite in one arm only); ``interval`` and
    ``mde`` are ``None`` where one pair or an infinite value leaves no spread. ``percent`` is for
    display."""

    effect: float
    percent: float
    interval: tuple[float, float] | None
    level: float
    pairs: int
    mde: float | None
    p_two_sided: float
    tost_p: float
    p_sign_flip: float | None
    verdict: Verdict


def compare_pairs(
    y: npt.ArrayLike, *, scale: Scale, margin: float, level: float = 0.95, floor: float = 0.0
) -> PairedResult:
    """Compare from one ``y`` a pair; NaN pairs (both arms infinite, or not applicable) carry no information.

    ``margin``: what counts as no difference, as a ratio minus 1 (``log_ratio``) or a difference. ``floor``:
    the least standard deviation believed. Raises ``ValueError`` for no pair, a margin or level out of
    range.
    """
    values = np.asarray(y, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if not len(values) or margin <= 0 or not 0.5 < level < 1 or floor < 0:
        raise ValueError("needs at least one pair, margin > 0, 0.5 < level < 1 and floor >= 0")
    if np.isinf(values).any():
        return _infinite(values, level)
    pairs, effect = len(values), float(np.mean(values))
    if pairs == 1:
        return PairedResult(effect, _percent(effect, scale), None, level, 1, None, 1.0, 1.0, None, "not resolved")
    spread = max(float(np.std(values, ddof=1)), floor)
    error, freedom = spread / math.sqrt(pairs), pairs - 1
    half = t_ppf((1 + level) / 2, freedom) * error
    detectable = (t_ppf(_MDE_LEVEL, freedom) + t_ppf(_MDE_POWER, freedom)) * error
    bound = math.log1p(margin) if scale == "log_ratio" else margin
    p_value = 2 * _tail(abs(effect), error, freedom)
    tost_p = max(_tail(bound - effect, error, freedom), _tail(bound + effect, error, freedom))
    return PairedResult(
        effect=effect,
        percent=_percent(effect, scale),
        interval=(effect - half, effect + half),
        level=level,
        pairs=pairs,
        mde=_expm1(detectable) if scale == "log_ratio" else detectable,
        p_two_sided=p_value,
        tost_p=tost_p,
        p_sign_flip=sign_flip_p(values) if pairs >= SIGN_FLIP_PAIRS else None,
        verdict=_verdict(effect, p_value, tost_p, level),
    )


def _tail(distance: float, error: float, freedom: int) -> float:
    """P(T >= distance / error). Without any spread it is 0, a half, or 1."""
    if error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return t_sf(distance / error, freedom)


def _verdict(effect: float, p_value: float, tost_p: float, level: float) -> Verdict:
    if p_value < 1 - level and effect != 0:
        return "worse" if effect > 0 else "better"
    return "equivalent" if tost_p < _TOST_ERROR else "not resolved"


def _infinite(values: Floats, level: float) -> PairedResult:
    """A percentile is infinite in one arm only: that arm is worse, and no interval can say by how much."""
    worse, better = bool(np.isposinf(values).any()), bool(np.isneginf(values).any())
    p_value = 1.0 if worse and better else 0.0
    verdict: Verdict = "not resolved" if worse and better else "worse" if worse else "better"
    effect = math.nan if worse and better else math.inf if worse else -math.inf
    percent = -100.0 if effect == -math.inf else effect
    return PairedResult(effect, percent, None, level, len(values), None, p_value, 1.0, None, verdict)


def _percent(effect: float, scale: Scale) -> float:
    return 100 * (_expm1(effect) if scale == "log_ratio" else effect)


def _expm1(value: float) -> float:
    return math.expm1(value) if value < 700 else math.inf


def sign_flip_p(y: npt.ArrayLike) -> float:
    """Exact two-sided sign-flip test: the share of the 2**k ways to swap arms inside pairs whose mean is at
    least as far from 0. Beyond 16 pairs, 65,536 ways drawn with a fixed seed."""
    values = np.asarray(y, dtype=np.float64)
    k = len(values)
    ways = min(k, _ENUMERATED_PAIRS)
    if k <= _ENUMERATED_PAIRS:
        bits = (np.arange(2**ways)[:, None] >> np.arange(k)) & 1
    else:
        bits = np.random.Generator(np.random.PCG64(0)).integers(0, 2, size=(2**ways, k))
        bits[0] = 0  # the way that was observed counts
    sums = np.abs((1 - 2 * bits) @ values)
    # The observed sum must count as "at least as far" in spite of rounding.
    return float(np.mean(sums >= abs(values.sum()) * (1 - 1e-12)))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where one is below the level (Holm 1979)."""
    order = sorted(range(len(pvalues)), key=lambda i: pvalues[i])
    adjusted, running = [1.0] * len(pvalues), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(pvalues) - rank) * pvalues[i]))
        adjusted[i] = running
    return adjusted


def scale_of(metric: str) -> Scale:
    """Attainment is compared by differences, latencies by log ratios."""
    return "difference" if metric == PRIMARY else "log_ratio"


def run_value(run: Mapping[str, Any], metric: str) -> float:
    """A metric of one run's summary entry; +inf where the document has ``None``, NaN where it is absent."""
    if metric == PRIMARY:
        found = run.get("attainment", {}).get("joint", math.nan)
    else:
        name, _, statistic = metric.rpartition("_")
        found = run.get(f"{name}_ms", {}).get(statistic, math.nan)
    return math.inf if found is None else float(found)


def pair_values(base: Runs, head: Runs, metric: str) -> Floats:
    """``y``, one a pair; positive: the head is worse. ±inf: infinite in one arm; NaN: in both, or not
    applicable."""
    if len(base) != len(head):
        raise ValueError(f"{len(base)} runs of the base, {len(head)} of the head: pairs need as many of each")
    of_base = np.array([run_value(run, metric) for run in base])
    of_head = np.array([run_value(run, metric) for run in head])
    if scale_of(metric) == "difference":
        return np.asarray(of_base - of_head)
    with np.errstate(invalid="ignore"):
        # A difference of logarithms, not the logarithm of a ratio: swapping the arms then negates it exactly.
        ratio: Floats = np.log(np.maximum(of_head, _RESOLUTION_MS)) - np.log(np.maximum(of_base, _RESOLUTION_MS))
    return ratio


def spread_floor(base: Runs, head: Runs, metric: str) -> float:
    """The least standard deviation believed: for attainment one request in n, so that "all 100 %" in every
    pair never gives an interval of no width."""
    if metric != PRIMARY:
        return 0.0
    counts = [run["requests"]["scheduled"] for run in (*base, *head)]
    return 1.0 / min(counts) if min(counts) > 0 else 0.0


def comparisons(
    per_pair: Mapping[str, Runs], base: str, arms: Sequence[str], primary: str = PRIMARY, *, level: float = 0.95
) -> list[dict[str, Any]]:
    """The document's ``comparisons``: every other arm against ``base``, the primary metric first.

    ``per_pair[arm][j]`` is the summary entry of the arm's run in pair j. A metric that applies to no pair
    is left out. Verdicts are Holm-corrected over arms for the primary metric, over metrics and arms for the
    others; intervals are not. ``level``: of the intervals and of the tests for a difference. Infinite figures
    are ``None``.
    """
    if primary not in MARGINS:
        raise ValueError(f"unknown primary metric '{primary}'")
    found: list[tuple[str, str, PairedResult]] = []
    for head in (arm for arm in arms if arm != base):
        for metric, margin in MARGINS.items():
            y = pair_values(per_pair[base], per_pair[head], metric)
            if np.isnan(y).all():
                continue
            floor = spread_floor(per_pair[base], per_pair[head], metric)
            result = compare_pairs(y, scale=scale_of(metric), margin=margin, level=level, floor=floor)
            found.append((head, metric, result))
    documents = []
    for is_primary in (True, False):
        family = [item for item in found if (item[1] == primary) == is_primary]
        adjusted = holm([result.p_two_sided for _, _, result in family])
        for (head, metric, result), p_value in zip(family, adjusted, strict=True):
            documents.append(_document(base, head, metric, is_primary, result, p_value))
    return documents


def _document(
    base: str, head: str, metric: str, primary: bool, result: PairedResult, p_adjusted: float
) -> dict[str, Any]:
    verdict = result.verdict
    if result.interval is not None:
        verdict = _verdict(result.effect, p_adjusted, result.tost_p, result.level)
    document: dict[str, Any] = {
        "base": base,
        "head": head,
        "metric": metric,
        "primary": primary,
        "scale": scale_of(metric),
        "effect": _finite(result.effect),
        "percent": _finite(result.percent),
        "interval": list(result.interval) if result.interval is not None else None,
        "level": result.level,
        "margin": MARGINS[metric],
        "pairs": result.pairs,
        "mde": _finite(result.mde),
        "p_value": p_adjusted,
        "verdict": verdict,
    }
    if result.p_sign_flip is not None:
        document["p_sign_flip"] = result.p_sign_flip
    return document


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
