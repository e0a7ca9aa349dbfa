from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.errors import UsageError
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.prompts import PromptMaker
from pdbench.workload.segments import repeated_tokens
from tests.unit.workload.helpers import workload

TWO = {"turns": 2, "think": "1s"}
UNIFORM = {"distribution": "uniform", "low": 20, "high": 90}


def plan(seed: int = 1, max_model_len: int | None = None, **changes: Any) -> Plan:
    return make_plan(workload(**changes), seed=seed, max_model_len=max_model_len)


def words(maker: PromptMaker, p: Plan, i: int) -> list[str]:
    return maker.text(i, int(p.prompt_tokens[i]), p.segments[i]).split(" ")


@settings(max_examples=60, deadline=None)
@given(
    shared=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    own=st.integers(8, 50),
    ratio=st.sampled_from([1.0, 0.75, 1.31]),
    salt=st.text(max_size=8),
)
def test_equal_pieces_are_equal_words_and_then_prompts_part(
    shared: list[int], own: int, ratio: float, salt: str
) -> None:
    maker = PromptMaker(salt=salt, words_per_token=ratio)
    pieces = tuple(enumerate(shared))
    one, two = (maker.text(i, sum(shared) + own, pieces).split(" ") for i in (4, 5))
    cut = round(sum(shared) * ratio)
    assert len(one) == maker.words(sum(shared) + own)
    assert one[:cut] == two[:cut]
    assert one[cut] != two[cut]
    assert maker.text(4, 9, ()) == maker.text(4, 9)
    if sum(shared) > 20:
        other = PromptMaker(salt=salt + "x", words_per_token=ratio).text(4, sum(shared) + own, pieces)
        assert other.split(" ")[:cut] != one[:cut]


def test_a_shorter_piece_is_the_beginning_of_a_longer_one() -> None:
    maker = PromptMaker(salt="s")
    assert maker.text(0, 90, ((7, 90),)).startswith(maker.text(1, 40, ((7, 40),)) + " ")


def test_synthetic_prefixes() -> None:
    p = plan(prefix={"tokens": 64, "groups": 4, "share": 0.75}, num_requests=2000, prompt_tokens=UNIFORM)
    with_prefix = [pieces for pieces in p.segments if pieces]
    assert len(with_prefix) / len(p) == pytest.approx(0.75, abs=0.03)
    groups, counts = np.unique([pieces[0][0] for pieces in with_prefix], return_counts=True)
    assert groups.tolist() == [0, 1, 2, 3]
    assert counts.min() > 300
    cut = [pieces[0][1] if pieces else 0 for pieces in p.segments]
    assert all(tokens in (0, min(64, length)) for tokens, length in zip(cut, p.prompt_tokens, strict=True))
    bare = plan(num_requests=2000, prompt_tokens=UNIFORM)
    assert bare.prompt_tokens.tolist() == p.prompt_tokens.tolist()
    assert bare.scheduled_ns.tolist() == p.scheduled_ns.tolist()
    assert bare.hash != p.hash


def test_turns_begin_with_the_turn_before() -> None:
    p = plan(sessions={"turns": 3, "think": "10s"}, num_requests=30, warmup=2, prompt_tokens=UNIFORM)
    maker = PromptMaker(salt="run")
    by_session: dict[int, list[int]] = {}
    for i in range(2, 32):
        by_session.setdefault(p.segments[i][0][0], []).append(i)
    assert len(by_session) == 10
    for turns in by_session.values():
        assert [int(p.scheduled_ns[i] - p.scheduled_ns[turns[0]]) for i in turns] == [0, 10**10, 2 * 10**10]
        for sooner, later in pairwise(turns):
            begin = words(maker, p, sooner)
            assert words(maker, p, later)[: len(begin)] == begin
            new = int(p.prompt_tokens[later] - p.prompt_tokens[sooner] - p.output_tokens[sooner])
            assert 20 <= new <= 90
    assert (np.diff(p.scheduled_ns) >= 0).all()
    first = [turns[0] for turns in by_session.values()]
    assert words(maker, p, first[0])[0:9] != words(maker, p, first[1])[0:9]
    last = sum(int(p.prompt_tokens[turns[-1]]) for turns in by_session.values())
    assert repeated_tokens(p.segments) == int(p.prompt_tokens[2:].sum()) - last


def test_sessions_of_one_group_share_their_prefix() -> None:
    p = plan(
        sessions={"turns": 2, "think": "1s"}, prefix={"tokens": 15}, num_requests=8, warmup=0, prompt_tokens=UNIFORM
    )
    assert {pieces[0] for pieces in p.segments} == {(0, 15)}
    assert p.prompt_tokens.tolist() == [sum(tokens for _, tokens in pieces) for pieces in p.segments]


def test_sessions_come_at_the_rate_of_requests() -> None:
    p = plan(sessions={"turns": 4, "think": "1s"}, num_requests=4000, arrivals={"process": "poisson", "rate": 5})
    assert p.rate == pytest.approx(5, rel=0.06)


def test_long_sessions_do_not_fit() -> None:
    with pytest.raises(UsageError, match="can reach 2304 tokens"):
        plan(max_model_len=2000, sessions={"turns": 4, "think": "1s"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix": {"tokens": 0}}, "tokens must be greater than 0"),
        ({"prefix": {"tokens": 5, "share": 1.5}}, "share must be at most 1"),
        ({"prefix": {"tokens": 5, "groups": 0}}, "groups must be greater than 0"),
        ({"sessions": {"turns": 0, "think": "1s"}}, "turns must be greater than 0"),
        ({"sessions": {"turns": 2, "think": "10"}}, "think: '10' has no unit"),
        ({"sessions": TWO, "arrivals": {"process": "closed", "concurrency": 2}}, "does not apply to 'closed'"),
        ({"prefix": {"tokens": 5}, "arrivals": {"process": "trace", "file": "x"}}, "a trace brings its own"),
        ({"prompts": {"file": "x.jsonl"}}, "leave out prompt_tokens"),
        ({"prompts": {"ids": True}}, "ids needs a tokenizer"),
        ({"prompts": {"file": "x.jsonl"}, "prompt_tokens": None, "output_tokens": None}, "output_tokens is required"),
    ],
)
def test_bad(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        workload(**changes)
    assert message in str(caught.value)


def test_counting_what_repeats_grows_with_the_blocks_not_their_square() -> None:
    many = tuple((block, 16) for block in range(4000))
    tracemalloc.start()
    try:
        assert repeated_tokens([many] * 2) == 4000 * 16
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert repeated_tokens([((1, 4), (2, 4)), ((2, 4), (1, 4)), ((1, 9), (2, 3))]) == 4 + 3
