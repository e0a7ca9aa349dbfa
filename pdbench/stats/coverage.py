"""Do the printed 95 % intervals hold what they promise? Repeated on the simulated server, where truth is known.

Truth is what very many runs of the same length say: the mean log ratio of P90 TTFT, which is what one value a
run estimates, and the share of requests in time. Beside them ``p90_ratio_pooled``: the ratio of the P90s of all
those requests pooled, which is a little further from 1 than the mean of short runs' ratios, and which the
interval therefore covers a little less often.

    measure_coverage(seed=0)["p90_ratio"]["coverage"]
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pdbench.stats.paired import Floats, compare_pairs
from pdbench.stats.proportions import estimate_share
from pdbench.stats.simulated import NO_SLOWDOWN, QUIET, Noise, Slowdown, draw_luck, make_plans, p90, pace, simulate

REQUESTS, WARMUP = 600, 100
_TTFT_LIMIT_S = 0.65
_HEAD = Slowdown(prefill=1.05)
_CHUNK = 100  # comparisons at once


def measure_coverage(
    seed: int = 0, repetitions: int = 1000, *, pairs: int = 6, truth_pairs: int = 20_000, utilisation: float = 0.7,
    noise: Noise = QUIET,
) -> dict[str, Any]:  # fmt: skip
    """How often each interval holds the truth, over ``repetitions`` comparisons of ``pairs`` pairs.

    ``truth_pairs``: pairs (of 600 requests in each arm) that the truth is taken from. Deterministic in
    ``seed``. ``ValueError`` without a repetition or with a single pair.
    """
    if repetitions < 1 or pairs < 2 or truth_pairs < pairs:
        raise ValueError("needs a repetition, two pairs and at least as many for the truth")
    y, share, ratio = _runs([seed, 0], math.ceil(truth_pairs / pairs), pairs, utilisation, noise)
    true_y, true_share = float(y.mean()), float(share.mean())
    y, share, _ = _runs([seed, 1], repetitions, pairs, utilisation, noise)
    compared = [compare_pairs(row, scale="log_ratio", margin=0.1).interval or (math.nan, math.nan) for row in y]
    of_ratio = _held(np.array(compared), true_y)
    counted = [estimate_share([(s * REQUESTS, REQUESTS) for s in row]) for row in share]
    return {
        "seed": seed, "repetitions": repetitions, "pairs": pairs, "requests": REQUESTS, "utilisation": utilisation,
        "p90_ratio": of_ratio,
        "p90_ratio_pooled": _held(np.array(compared), ratio),
        "attainment": _held(np.array([found.interval for found in counted]), true_share),
        "design_effect": float(np.mean([found.deff or math.nan for found in counted])),
    }  # fmt: skip


def _runs(
    seed: list[int], comparisons: int, pairs: int, utilisation: float, noise: Noise
) -> tuple[Floats, Floats, float]:
    """y and the head's share in time, each [comparisons, pairs]; ln of the ratio of the pooled P90s."""
    ys, shares, pooled = [], [], np.zeros((2, len(_BINS) - 1))
    for start in range(0, comparisons, _CHUNK):
        rng = np.random.Generator(np.random.PCG64([*seed, start]))
        count = min(_CHUNK, comparisons - start)
        plans = make_plans((count, pairs), REQUESTS, WARMUP, utilisation, rng)
        lucks = [draw_luck(plans, own, noise, rng) for own in pace(count, pairs, noise, rng)]
        base, head = (
            simulate(plans, luck, slow).ttft_s for luck, slow in zip(lucks, (NO_SLOWDOWN, _HEAD), strict=True)
        )
        ys.append(np.log(p90(head, WARMUP)) - np.log(p90(base, WARMUP)))
        shares.append(np.mean(head[..., WARMUP:] <= _TTFT_LIMIT_S, axis=-1))
        pooled += [np.histogram(arm[..., WARMUP:], bins=_BINS)[0] for arm in (base, head)]
    of_base, of_head = (_BINS[int(np.searchsorted(np.cumsum(row), 0.9 * row.sum())) + 1] for row in pooled)
    return np.concatenate(ys), np.concatenate(shares), float(np.log(of_head / of_base))


# Bins 0.1 % wide: millions of requests need not be kept to know their P90.
_BINS = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 13_816)])


def _held(intervals: Floats, truth: float) -> dict[str, float]:
    return {
        "coverage": float(np.mean(_holds(intervals, truth))),
        "truth": truth,
        "below": float(np.mean(intervals[:, 1] < truth)),
        "above": float(np.mean(intervals[:, 0] > truth)),
        "mean_width": float(np.mean(intervals[:, 1] - intervals[:, 0])),
    }


def _holds(intervals: Floats, truth: float) -> Floats:
    return np.asarray((intervals[:, 0] <= truth) & (truth <= intervals[:, 1]), dtype=np.float64)
