"""Stalls joined to prompts: by hand, by brute force, and on the virtual clock where the truth is the cost model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.measure.blame import prompt_blame
from pdbench.measure.gaps import decode_gaps
from pdbench.measure.interference import interference
from tests.unit.measure.helpers import frames, request
from tests.unit.measure.serverhelp import CHUNKED, MIXED, SPLIT, Row, lifecycle, plan, server, simulated, step

# One worker: stream "s" decodes every 10 ms; prompt "p" of 200 tokens runs from 30 to 70.
STREAM = lifecycle("s", [10, 20, 30, 80, 90], prefill=(0, 10))
PROMPT = lifecycle("p", [70, 80], arrive=25, prefill=(30, 70), prompt=200)
STEPS = [
    step(0, 0, 10, 100, 0), step(0, 10, 20), step(0, 20, 30), step(0, 30, 70, 200, 0), step(0, 70, 80),
    step(0, 80, 90),
]  # fmt: skip


def account(rows: list[Row], steps: list[Row], **options: Any) -> dict[str, Any]:
    return interference(server(*rows), server(*steps), **options)


def test_gaps_by_hand() -> None:
    gaps = decode_gaps(server(STREAM, PROMPT), server(*STEPS))
    assert gaps["request_id"].tolist() == ["s"] * 4 + ["p"]
    assert gaps["token"].tolist() == [1, 2, 3, 4, 1]
    assert (gaps["gap_ns"] / 1e6).tolist() == [10, 10, 50, 10, 10]
    # The step that emits the first token of a gap is not in it, the one that emits the last is.
    assert gaps["prefill_tokens"].tolist() == [0, 0, 200, 0, 0]


def test_the_account_by_hand() -> None:
    found = account([STREAM, PROMPT], STEPS)
    assert found["gaps"] == 5
    assert found["disturbed_share"] == 0.2
    assert found["undisturbed_gap_ms"] == 10
    assert found["stall_ms_per_1k_tokens"] == 200  # 40 ms for 200 tokens
    assert (found["stalls"], found["stall_ms"], found["stall_prefill_share"]) == (1, 40, 1.0)
    assert found["worst_prompts"] == [{"request_id": "p", "prompt_tokens": 200, "cost_ms": 40}]
    assert found["worst_stalls"] == [
        {"request_id": "s", "token": 3, "gap_ms": 50, "excess_ms": 40, "prefill_tokens": 200, "prompts": ["p"]}
    ]


def test_a_mixed_step_counts_with_its_gap() -> None:
    """A chunk in the very step that emits the token belongs to the gap that ends with it."""
    rows = [lifecycle("s", [10, 20, 45], prefill=(0, 10)), lifecycle("p", [45], prefill=(20, 45), prompt=64)]
    gaps = decode_gaps(server(*rows), server(step(0, 0, 10, 100), step(0, 10, 20), step(0, 20, 45, 64)))
    assert gaps["prefill_tokens"].tolist() == [0, 64]


def test_a_stall_without_a_prompt_is_not_blamed_on_one() -> None:
    stream = lifecycle("s", [10, 20, 30, 130, 140], prefill=(0, 10))
    found = account([stream], [step(0, t, t + 10) for t in (0, 10, 20, 120, 130)])
    assert found["stall_prefill_share"] == 0.0
    assert found["stall_ms"] == 90
    assert found["worst_prompts"] == []
    assert found["worst_stalls"][0]["prompts"] == []


def test_another_worker_is_elsewhere() -> None:
    """Prompts beside the stream, on two other workers: no disturbance, but looked at, by the share that overlaps."""
    stream = lifecycle("s", [10, 20, 35, 50, 65], prefill=(0, 10))
    steps = [step(0, a, b) for a, b in ((0, 10), (10, 20), (20, 35), (35, 50), (50, 65))]
    steps += [step(1, 20, 65, 270), step(2, 30, 40, 30)]
    gaps = decode_gaps(server(stream), server(*steps))
    assert gaps["prefill_tokens"].tolist() == [0, 0, 0, 0]
    assert gaps["elsewhere_tokens"].tolist() == pytest.approx([0, 105, 105, 90])
    found = account([stream], steps)
    assert found["stall_ms_per_1k_tokens"] == 0
    assert found["elsewhere"]["gaps_share"] == 0.75
    assert found["elsewhere"]["stall_ms_per_1k_tokens"] == pytest.approx(15 / 300 * 1000, abs=1e-5)


def test_runs_are_told_apart() -> None:
    """The same instants and worker in another pair disturb nobody here."""
    quiet = server(lifecycle("s", [10, 20, 30, 40], prefill=(0, 10)), pair=0)
    steps = pd.concat([server(step(0, 0, 40), pair=0), server(step(0, 25, 28, 999), pair=1)], ignore_index=True)
    gaps = decode_gaps(quiet, steps)
    assert gaps["prefill_tokens"].tolist() == [0, 0, 0]
    assert gaps["elsewhere_tokens"].tolist() == [0, 0, 0]


def test_the_first_gap_of_a_handed_off_request_is_no_decode_gap() -> None:
    row = lifecycle("s", [10, 60, 70], prefill=(0, 10), transfer=(12, 40), admit=50, workers=(0, 1))
    gaps = decode_gaps(server(row), server(step(0, 0, 10, 100), step(1, 50, 60), step(1, 60, 70)))
    assert gaps["token"].tolist() == [2]
    assert gaps["worker"].tolist() == [1]


def test_warmup_streams_are_left_out_but_their_prompts_disturb() -> None:
    requests, _ = frames(
        request(0, 1, request_id="s"),
        request(1, 1, request_id="p", warmup=True),
    )
    found = account([STREAM, PROMPT], STEPS, requests=requests)
    assert found["gaps"] == 4
    assert found["stall_ms_per_1k_tokens"] == 200


@pytest.mark.parametrize(("stall_ms", "stalls"), [(5.0, 5), (10.0, 1), (49.9, 1), (50.0, 0)])
def test_the_threshold_is_exclusive(stall_ms: float, stalls: int) -> None:
    found = account([STREAM, PROMPT], STEPS, stall_ns=stall_ms * 1e6)
    assert found["stalls"] == stalls
    assert ("stall_prefill_share" in found) == (stalls > 0)


def test_nothing_to_account_for() -> None:
    assert account([], []) == {}
    assert account([STREAM], []) == {}
    assert account([lifecycle("s", [10])], STEPS) == {}


def test_every_gap_disturbed_says_so_and_claims_nothing() -> None:
    rows = [lifecycle("s", [10, 50], prefill=(0, 10))]
    found = account(rows, [step(0, 0, 10, 1), step(0, 10, 50, 64)])
    assert found == {"gaps": 1, "disturbed_share": 1.0, "prefill_tokens": 64}


# ---- on the virtual clock: 0.1 ms a prompt token, 10 ms a decode step

COST = {"prefill_ms_per_token": 0.1, "decode_ms_per_step": 10.0}
LOAD = plan((0, 100, 60), (3, 100, 60), (123, 500, 4), (301, 800, 4))


@pytest.mark.parametrize("workers", [MIXED, CHUNKED], ids=["prefill_first", "chunked"])
def test_colocated_streams_pay_the_price_of_a_prompt_token(workers: list[Row]) -> None:
    """Both policies make a stream wait 0.1 ms a prompt token: chunking spreads the stall, it does not remove it."""
    run = simulated(workers, COST, LOAD)
    found = interference(run.server, run.steps, run.requests)
    assert found["stall_ms_per_1k_tokens"] == pytest.approx(100.0, rel=1e-6)
    assert found["undisturbed_gap_ms"] == 10.0
    assert found["worst_prompts"][0]["request_id"] == "sim-3"


def test_prefill_first_stalls_are_prompts() -> None:
    found = interference(*_two(simulated(MIXED, COST, LOAD)))
    assert found["stall_prefill_share"] == 1.0
    assert found["worst_stalls"][0]["gap_ms"] == 90.0
    assert found["worst_stalls"][0]["prompts"] == ["sim-3"]


def test_a_disaggregated_arm_has_no_interference() -> None:
    found = interference(*_two(simulated(SPLIT, COST, LOAD)))
    assert found["prefill_tokens"] == 0
    assert found["stall_ms_per_1k_tokens"] == 0
    assert found["disturbed_share"] == 0
    assert found["stalls"] == 0
    assert found["elsewhere"]["stall_ms_per_1k_tokens"] == pytest.approx(0, abs=1e-9)
    assert found["elsewhere"]["gaps_share"] > 0


def _two(run: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    return run.server, run.steps


# ---- against brute force


@st.composite
def lanes(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Two workers whose steps follow each other; streams that emit at ends of steps; prompts in between."""
    steps: list[Row] = []
    rows: list[Row] = []
    for worker in range(2):
        now, ends = draw(st.integers(0, 5)), []
        for _ in range(draw(st.integers(2, 12))):
            took = draw(st.integers(1, 20))
            steps.append(step(worker, now, now + took, draw(st.sampled_from([0, 0, 8, 64]))))
            now += took
            ends.append(now)
            now += draw(st.integers(0, 3))
        for _ in range(draw(st.integers(0, 3))):
            tokens = sorted(draw(st.sets(st.sampled_from(ends), min_size=1)))
            first = draw(st.integers(0, len(ends) - 1))
            last = draw(st.integers(first, len(ends) - 1))
            mine = [s for s in steps if s["worker"] == worker][first : last + 1]
            prefill = (mine[0]["start_ns"] / 1e6, mine[-1]["end_ns"] / 1e6)
            prompt = max(1, sum(s["prefill_tokens"] for s in mine))
            rows.append(lifecycle(f"r{len(rows)}", tokens, prefill=prefill, workers=(worker, worker), prompt=prompt))
    return rows, steps


@given(lanes())
@settings(max_examples=60, deadline=None)
def test_tokens_inside_against_brute_force(case: tuple[list[Row], list[Row]]) -> None:
    rows, steps = case
    for _, gap in decode_gaps(server(*rows), server(*steps)).iterrows() if rows else []:
        expected = sum(
            s["prefill_tokens"]
            for s in steps
            if s["worker"] == gap["worker"] and gap["start_ns"] < s["end_ns"] <= gap["end_ns"]
        )
        assert gap["prefill_tokens"] == expected


@given(lanes())
@settings(max_examples=60, deadline=None)
def test_blame_is_neither_lost_nor_doubled(case: tuple[list[Row], list[Row]]) -> None:
    """Each step that ran prompt tokens gets a prompt that owns it; then the blame adds up to the loss."""
    rows, steps = case
    owners = [
        lifecycle(f"p{i}", [s["end_ns"] / 1e6], prefill=(s["start_ns"] / 1e6, s["end_ns"] / 1e6),
                  workers=(s["worker"], s["worker"]), prompt=s["prefill_tokens"])
        for i, s in enumerate(steps) if s["prefill_tokens"]
    ]  # fmt: skip
    table, log = server(*rows, *owners), server(*steps)
    gaps = decode_gaps(table, log)
    if not len(gaps):
        return
    lost = np.where(gaps["prefill_tokens"] > 0, gaps["gap_ns"], 0.0)
    assert prompt_blame(table, log, gaps, lost).sum() == pytest.approx(lost.sum())


def test_two_whole_prompts_in_one_step_share_by_length() -> None:
    rows = [
        lifecycle("s", [10, 20, 80], prefill=(0, 10)),
        lifecycle("p", [70], prefill=(20, 70), prompt=100),
        lifecycle("q", [70], prefill=(20, 70), prompt=300),
    ]
    found = account(rows, [step(0, 0, 10, 1), step(0, 10, 20), step(0, 20, 70, 400), step(0, 70, 80)])
    assert found["worst_prompts"] == [
        {"request_id": "q", "prompt_tokens": 300, "cost_ms": 37.5},
        {"request_id": "p", "prompt_tokens": 100, "cost_ms": 12.5},
    ]
