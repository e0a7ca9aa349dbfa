from __future__ import annotations

import numpy as np
import pytest

from pdbench.measure.metrics import summarise
from pdbench.stats.mutants import OBJECTIVES, evidence
from pdbench.stats.simulated import (
    QUIET,
    Noise,
    Slowdown,
    draw_luck,
    lindley,
    make_plans,
    p90,
    pace,
    simulate,
)

STILL = Noise(request=0.0, wander=0.0, run=0.0, drift=0.0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_lindley_is_the_recursion() -> None:
    rng = generator()
    at, service = np.cumsum(rng.exponential(1.0, (3, 50)), axis=1), rng.exponential(0.8, (3, 50))
    waits = np.zeros((3, 50))
    for i in range(1, 50):
        waits[:, i] = np.maximum(0, waits[:, i - 1] + service[:, i - 1] - (at[:, i] - at[:, i - 1]))
    assert lindley(at, service) == pytest.approx(waits, abs=1e-9)


def test_mean_wait_is_pollaczek_khinchines() -> None:
    # M/D/1: mean wait = rho * S / (2 * (1 - rho)); at 0.6 and S = 1: 0.75.
    at = np.cumsum(generator(1).exponential(1 / 0.6, (20, 60_000)), axis=1)
    assert lindley(at, np.ones_like(at)).mean() == pytest.approx(0.75, rel=0.03)


def test_a_still_machine_repeats_itself_and_slowdowns_show_where_they_belong() -> None:
    plans = make_plans((4,), 200, 20, 0.6, generator())
    one, other = (draw_luck(plans, np.ones(4), STILL, generator(seed), decode=True) for seed in (1, 2))
    base = simulate(plans, one)
    assert np.array_equal(base.ttft_s, simulate(plans, other).ttft_s)
    prefill, decode, transfer, stall = (
        simulate(plans, one, slow)
        for slow in (Slowdown(prefill=1.5), Slowdown(decode=1.5), Slowdown(transfer=2), Slowdown(stall=0.02))
    )
    assert p90(prefill.ttft_s, 20).mean() > 1.5 * p90(base.ttft_s, 20).mean()
    for later in (decode, transfer, stall):
        assert np.array_equal(later.ttft_s, base.ttft_s)
    assert decode.step_s.mean() == pytest.approx(1.5 * base.step_s.mean())
    assert (transfer.handoff_s > base.handoff_s).all()
    assert np.array_equal(transfer.step_s[:, 0], base.step_s[:, 0])
    assert stall.stalls.mean() == pytest.approx(0.02 * 30, rel=0.15)


def test_order_halves_the_drift() -> None:
    drifting = Noise(request=0.0, wander=0.0, run=0.0, drift=0.01)
    base, head = np.log(pace(2000, 16, drifting, generator()))
    # One step a pair, of either sign; without alternation the mean difference would be the same, but one-sided
    # trends would not cancel: turn the walk into a ramp and they do.
    assert np.std(head - base) == pytest.approx(0.01, rel=0.05)
    assert abs(np.mean((head - base)[:, ::2] - (head - base)[:, 1::2])) < 1e-3


def test_the_short_cut_agrees_with_the_real_pipeline() -> None:
    rng = generator(3)
    plans = make_plans((2,), 150, 20, 0.6, rng)
    runs = simulate(plans, draw_luck(plans, np.ones(2), QUIET, rng, decode=True), Slowdown(stall=0.02))
    for pair in range(2):
        run = evidence("a", plans, runs, pair, 0.0, rng)
        entry = summarise(run.requests, run.tokens, OBJECTIVES, 1)
        for name, values in (
            ("ttft", runs.ttft_s),
            ("tpot", runs.tpot_s),
            ("worst_gap", runs.worst_gap_s),
            ("e2e", runs.e2e_s),
        ):
            assert entry[f"{name}_ms"]["p90"] == pytest.approx(1e3 * p90(values, 20)[pair], abs=1e-4), name
        assert entry["requests"] == {"scheduled": 150, "ok": 150, "failed": 0, "warmup": 20}
