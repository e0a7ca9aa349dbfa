from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.errors import UsageError
from pdbench.workload.arrivals import unit_gaps
from pdbench.workload.lengths import draw_lengths
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.spec import Lengths, Workload
from tests.unit.workload.helpers import workload


def plan(seed: int = 1, pair: int = 0, max_model_len: int | None = 4096, **changes: Any) -> Plan:
    return make_plan(workload(**changes), seed=seed, pair=pair, max_model_len=max_model_len)


def gaps(p: Plan) -> np.ndarray[Any, Any]:
    return np.diff(p.scheduled_ns[~p.warmup])


def test_known_answers() -> None:
    """Pinned: the same plan on every machine, and no silent change of what a seed means."""
    assert plan().hash == "d7b7df011a0edaef7f264eb5dc989311bed8b39ad6cf014f398ffa164950cb4e"
    mixed = plan(
        arrivals={"process": "gamma", "rate": 5, "burstiness": 0.4},
        prompt_tokens={"distribution": "lognormal", "median": 300, "sigma": 0.8, "high": 2000},
        output_tokens={"distribution": "uniform", "low": 8, "high": 99},
    )
    assert mixed.hash == "bcd960f9a55283e6e22687d8358ca9f44db833d31e3c07b9c6b52d8d1c560bea"
    first = mixed.scheduled_ns[~mixed.warmup][:2].tolist(), mixed.prompt_tokens[~mixed.warmup][:3].tolist()
    assert first == ([3338473000, 3343210000], [286, 368, 173])


def test_warm_up_comes_first_and_is_extra() -> None:
    p = plan()
    assert len(p) == 70
    assert p.warmup.tolist() == [True] * 10 + [False] * 60
    warm = p.scheduled_ns[:10]
    assert len(set(np.diff(warm))) == 1
    assert p.scheduled_ns[10] >= warm[-1] + 10**9
    assert plan(warmup=0).scheduled_ns[0] >= 0


def test_hand_written_instants() -> None:
    p = plan(
        arrivals={"process": "at", "times_ms": [0, 0, 12.5]},
        prompt_tokens={"distribution": "list", "values": [200, 500, 300]},
        num_requests=3,
        warmup=0,
    )
    assert p.scheduled_ns.tolist() == [0, 0, 12_500_000]
    assert p.prompt_tokens.tolist() == [200, 500, 300]
    assert p.rate == pytest.approx(160.0)


def test_all_at_once_has_no_finite_rate() -> None:
    assert plan(arrivals={"process": "at", "times_ms": [0, 0]}, num_requests=2, warmup=0).rate == float("inf")


def test_constant() -> None:
    p = plan(arrivals={"process": "constant", "rate": 4}, num_requests=9, warmup=0)
    assert p.scheduled_ns.tolist() == [250_000_000 * i for i in range(1, 10)]
    assert p.rate == pytest.approx(4.0)


@pytest.mark.parametrize("process", ["poisson", "gamma"])
def test_the_mean_rate_is_the_rate(process: str) -> None:
    extra = {"burstiness": 0.5} if process == "gamma" else {}
    p = plan(arrivals={"process": process, "rate": 8, **extra}, num_requests=20_000)
    assert p.rate == pytest.approx(8, rel=0.03)
    cv = gaps(p).std() / gaps(p).mean()
    assert cv == pytest.approx(1.0 if process == "poisson" else 2**0.5, rel=0.05)


def test_gamma_of_shape_one_is_poisson() -> None:
    u = np.linspace(0, 0.999, 500)
    np.testing.assert_allclose(unit_gaps("gamma", u, 1.0), unit_gaps("poisson", u), rtol=1e-9, atol=1e-12)


def test_seed_and_pair_change_the_plan() -> None:
    hashes = {plan(seed=s, pair=p).hash for s in (1, 2) for p in (0, 1)}
    assert len(hashes) == 4
    assert plan().hash == plan().hash


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**40), factor=st.sampled_from([2.0, 0.5, 3.7]), process=st.sampled_from(["poisson", "gamma"])
)
def test_rate_rescales_time_only(seed: int, factor: float, process: str) -> None:
    lengths = {"distribution": "uniform", "low": 1, "high": 900}
    extra = {"burstiness": 0.3} if process == "gamma" else {}
    one = plan(seed, arrivals={"process": process, "rate": 1.5, **extra}, prompt_tokens=lengths)
    two = plan(seed, arrivals={"process": process, "rate": 1.5 * factor, **extra}, prompt_tokens=lengths)
    assert one.prompt_tokens.tolist() == two.prompt_tokens.tolist()
    np.testing.assert_allclose(gaps(one) / factor, gaps(two), atol=1001)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), rate=st.floats(0.01, 5000), n=st.integers(1, 50), warm=st.integers(0, 12))
def test_invariants(seed: int, rate: float, n: int, warm: int) -> None:
    p = plan(seed, arrivals={"process": "poisson", "rate": rate}, num_requests=n, warmup=warm)
    assert len(p) == n + warm
    assert int(p.warmup.sum()) == warm
    assert (np.diff(p.scheduled_ns) >= 0).all()
    assert (p.scheduled_ns % 1000 == 0).all()
    assert p.scheduled_ns.dtype == np.int64
    assert p.prompt_tokens.dtype == p.output_tokens.dtype == np.int32


def test_one_law_leaves_the_others_alone() -> None:
    base = plan(output_tokens={"distribution": "uniform", "low": 1, "high": 99})
    other = plan(
        output_tokens={"distribution": "uniform", "low": 1, "high": 99},
        prompt_tokens={"distribution": "uniform", "low": 1, "high": 99},
        warmup=3,
    )
    assert base.output_tokens[10:].tolist() == other.output_tokens[3:].tolist()
    assert gaps(base).tolist() == gaps(other).tolist()
    assert other.prompt_tokens[3:].tolist() != other.output_tokens[3:].tolist()


def test_the_hash_sees_every_column() -> None:
    p = plan()
    columns = {name: getattr(p, name) for name in ("scheduled_ns", "prompt_tokens", "output_tokens", "warmup")}
    for name in columns:
        changed = {k: v.copy() for k, v in columns.items()}
        changed[name][-1] = changed[name][-1] + 1 if name != "warmup" else True
        assert Plan(**changed, seed=1, pair=0).hash != p.hash, name
    assert Plan(**columns, seed=9, pair=9).hash == p.hash


def test_a_plan_refuses_nonsense() -> None:
    ones = np.ones(2, dtype=np.int32)
    warm = np.zeros(2, dtype=bool)
    with pytest.raises(ValueError, match="backwards"):
        Plan(np.array([5, 4]), ones, ones, warm, 0, 0)
    with pytest.raises(ValueError, match="one length"):
        Plan(np.array([5]), ones, ones, warm, 0, 0)


def test_too_long_for_the_model() -> None:
    assert len(plan(max_model_len=576)) == 70
    with pytest.raises(UsageError, match="can reach 576 tokens, longer than the model's maximum 575"):
        plan(max_model_len=575)
    with pytest.raises(UsageError, match="maximum 500"):
        plan(max_model_len=500, prompt_tokens={"distribution": "uniform", "low": 1, "high": 450})


def test_a_plan_of_years_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than a year"):
        plan(arrivals={"process": "poisson", "rate": 1e-12})


def test_negative_seed() -> None:
    with pytest.raises(UsageError, match="--seed"):
        plan(seed=-1)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        ({"distribution": "fixed", "value": 7}, [7, 7, 7, 7]),
        ({"distribution": "uniform", "low": 1, "high": 4}, [1, 2, 3, 4]),
        ({"distribution": "list", "values": [3, 9]}, [3, 9, 3, 9]),
        ({"distribution": "lognormal", "median": 100, "sigma": 0.0, "high": 400}, [100] * 4),
        ({"distribution": "lognormal", "median": 100, "sigma": 1.0, "low": 60, "high": 150}, [60, 60, 100, 150]),
    ],
)
def test_lengths(law: dict[str, Any], expected: list[int]) -> None:
    assert draw_lengths(Lengths(**law), np.array([0.0, 0.25, 0.5, 0.999])).tolist() == expected


def trace_workload(tmp_path: Path, *, n: int = 60, **arrivals: Any) -> Workload:
    file = tmp_path / "t.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.5000000,100,10\n"
        "2023-11-16 18:15:47.0000000,5000,20\n"
        "2023-11-16 18:15:48.5000001,300,30\n"
        "2023-11-16 18:15:50.5000000,400,40\n"
    )
    changes = {"process": "trace", "file": str(file), "format": "azure", **arrivals}
    return workload(arrivals=changes, prompt_tokens=None, output_tokens=None, num_requests=n, warmup=5)


def test_a_trace_is_replayed_and_long_rows_are_counted(tmp_path: Path) -> None:
    p = make_plan(trace_workload(tmp_path), seed=1, max_model_len=4096)
    assert p.dropped == 1
    assert p.prompt_tokens.tolist() == [100, 300, 400, 100, 300, 100, 300, 400]
    assert p.output_tokens[5:].tolist() == [10, 30, 40]
    start = p.scheduled_ns[5]
    assert (p.scheduled_ns[5:] - start).tolist() == [0, 2_000_000_000, 4_000_000_000]
    assert p.rate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arrivals", "offsets_s", "prompts"),
    [
        ({}, [0, 0.5, 2.0, 4.0], [100, 5000, 300, 400]),
        ({"time_scale": 0.5}, [0, 0.25, 1.0, 2.0], [100, 5000, 300, 400]),
        ({"rate": 1.5}, [0, 0.25, 1.0, 2.0], [100, 5000, 300, 400]),
        ({"length_scale": 0.01}, [0, 0.5, 2.0, 4.0], [1, 50, 3, 4]),
        ({"length_scale": 0.001}, [0, 0.5, 2.0, 4.0], [1, 5, 1, 1]),
        ({"start_row": 1, "rows": 2}, [0, 1.5], [5000, 300]),
        ({"start_s": 0.5, "duration_s": 1.6}, [0, 1.5], [5000, 300]),
        ({"duration_s": 2.0}, [0, 0.5], [100, 5000]),
    ],
)
def test_slices_and_scales(
    tmp_path: Path, arrivals: dict[str, Any], offsets_s: list[float], prompts: list[int]
) -> None:
    p = make_plan(trace_workload(tmp_path, **arrivals), seed=1, max_model_len=None)
    offsets = (p.scheduled_ns[~p.warmup] - p.scheduled_ns[5]) / 1e9
    np.testing.assert_allclose(offsets, offsets_s, atol=1e-6)
    assert p.prompt_tokens[~p.warmup].tolist() == prompts


def test_num_requests_limits_a_trace(tmp_path: Path) -> None:
    p = make_plan(trace_workload(tmp_path, n=2), seed=1, max_model_len=4096)
    assert p.prompt_tokens[~p.warmup].tolist() == [100, 300]


def test_no_row_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the trace's 4 rows fits"):
        make_plan(trace_workload(tmp_path), seed=1, max_model_len=50)
