from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.errors import UsageError
from pdbench.measure.slo import METRICS, Objective, parse_goodput, parse_objective, parse_objectives


@pytest.mark.parametrize(
    ("text", "canonical", "limit_ns", "share"),
    [
        ("ttft p90 <= 400ms", "ttft p90 <= 400ms", 400_000_000, 0.9),
        ("  TTFT  P90<=0.4s ", "ttft p90 <= 400ms", 400_000_000, 0.9),
        ("tpot p90 <= 40ms", "tpot p90 <= 40ms", 40_000_000, 0.9),
        ("tbt p99 ≤ 100ms", "tbt p99 <= 100ms", 100_000_000, 0.99),
        ("worst_gap p99.9 <= 1s", "worst_gap p99.9 <= 1s", 10**9, 0.999),
        ("e2e p100 <= 10s", "e2e p100 <= 10s", 10**10, 1.0),
        ("e2e p5 <= 50us", "e2e p5 <= 50us", 50_000, 0.05),
        ("errors <= 1%", "errors <= 1%", None, 0.99),
        ("errors <= 0.5%", "errors <= 0.5%", None, 0.995),
        ("errors <= 0", "errors <= 0%", None, 1.0),
    ],
)
def test_good(text: str, canonical: str, limit_ns: int | None, share: float) -> None:
    objective = parse_objective(text)
    assert objective.text == canonical
    assert objective.limit_ns == limit_ns
    assert objective.share == pytest.approx(share)
    assert parse_objective(objective.text) == objective


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "ttft p90 <= 400ms"),
        ("ttft", "ttft p90 <= 400ms"),
        ("ttft p90", "ttft p90 <= 400ms"),
        ("tfft p90 <= 400ms", "did you mean 'ttft'?"),
        ("itl p90 <= 40ms", "did you mean 'tbt'?"),
        ("ttft p90 <= 400", "400ms or 400s"),
        ("ttft p90 < 400ms", "write <="),
        ("ttft p90 >= 400ms", "write <="),
        ("ttft p90 == 400ms", "write <="),
        ("ttft <= 400ms", "names no percentile"),
        ("ttft mean <= 400ms", "averages hide the tail"),
        ("ttft p0 <= 400ms", "not a percentile"),
        ("ttft p101 <= 400ms", "not a percentile"),
        ("ttft p90 <= 0ms", "greater than 0"),
        ("ttft p90 <= -4ms", "not a duration"),
        ("ttft p90 <= 1%", "unknown unit"),
        ("errors p90 <= 1%", "errors takes no 'p90'"),
        ("errors <= 1ms", "not a share"),
        ("errors <= 101%", "more than 100%"),
    ],
)
def test_bad(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_objective(text, where="--slo")
    assert hint in str(caught.value)
    assert caught.value.where == "--slo"


@given(
    st.sampled_from([m for m in METRICS if m != "errors"]),
    st.integers(1, 1000).map(lambda n: n / 10),
    st.integers(1, 10**13),
)
def test_canonical_text_reads_back(metric: str, percentile: float, limit_ns: int) -> None:
    objective = Objective(metric, percentile, limit_ns)
    assert parse_objective(objective.text) == objective


def test_goodput() -> None:
    assert [o.text for o in parse_goodput("ttft:400 tpot:40.5,e2el:9000")] == [
        "ttft p90 <= 400ms",
        "tpot p90 <= 40500us",
        "e2e p90 <= 9s",
    ]


@pytest.mark.parametrize("text", ["", "ttft", "ttft:", "ttft:fast", "ttft:-1", "ttft:0", "tbt:40", "x:1", "ttft:nan"])
def test_bad_goodput(text: str) -> None:
    with pytest.raises(UsageError):
        parse_goodput(text)


def test_the_same_objective_twice() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_objectives(["ttft p90 <= 400ms", "ttft p90 <= 0.4s"])


def test_what_takes_part_in_joint_attainment() -> None:
    assert parse_objective("worst_gap p90 <= 1ms").per_request
    assert not parse_objective("tbt p90 <= 1ms").per_request
    assert not parse_objective("errors <= 1%").per_request


@pytest.mark.parametrize(
    "fields",
    [
        {"metric": "x", "percentile": 90, "limit_ns": 1},
        {"metric": "ttft"},
        {"metric": "ttft", "percentile": 0, "limit_ns": 1},
        {"metric": "ttft", "percentile": 90, "limit_ns": -1},
        {"metric": "errors"},
        {"metric": "errors", "limit_share": 1.5},
    ],
)
def test_an_objective_refuses_nonsense(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"unknown|needs|must"):
        Objective(**fields)  # type: ignore[arg-type]
