"""The scheduler and the cache: tables for what each policy does, properties for what none may ever do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.cache import SlotCache
from pdserve.config import Policy
from pdserve.scheduler import Scheduler
from pdserve.sequence import Sequence, Step


def scheduler(
    policy: Policy, *, slots: int = 4, max_batch: int = 4, max_batch_tokens: int = 100, token_budget: int = 10
) -> Scheduler:
    cache = SlotCache(slots, 1000)
    return Scheduler(policy, cache, max_batch=max_batch, max_batch_tokens=max_batch_tokens, token_budget=token_budget)


def run(s: Scheduler, step: Step) -> list[str]:
    """Books a step as an engine would; returns who emitted a token."""
    emitted = []
    for chunk in step.chunks:
        samples = chunk.samples
        chunk.seq.computed = chunk.start + chunk.count
        if samples:
            chunk.seq.emitted += 1
            emitted.append(chunk.seq.id)
            if chunk.seq.emitted == chunk.seq.max_new or s.policy == "prefill_only":
                s.remove(chunk.seq)
                s.cache.release(chunk.seq.id)
    return emitted


def shape(step: Step | None) -> list[tuple[str, int, int]]:
    return [(c.seq.id, c.start, c.count) for c in step.chunks] if step else []


def test_prefill_first_stalls_running_streams_while_prompts_wait() -> None:
    s = scheduler("prefill_first")
    s.add(Sequence("a", 30, 5))
    first = s.plan()
    assert shape(first) == [("a", 0, 30)]
    assert first is not None
    run(s, first)
    s.add(Sequence("b", 60, 5))
    s.add(Sequence("c", 60, 5))
    assert shape(s.plan()) == [("b", 0, 60), ("c", 0, 40)], "prompts only, packed up to max_batch_tokens"


def test_chunked_mixes_decodes_and_prompt_chunks_within_the_budget() -> None:
    s = scheduler("chunked")
    s.add(Sequence("a", 4, 5))
    step = s.plan()
    assert step is not None
    run(s, step)
    s.add(Sequence("b", 25, 5))
    shapes = []
    for _ in range(3):
        step = s.plan()
        assert step is not None
        shapes.append(shape(step))
        run(s, step)
    assert shapes == [
        [("a", 4, 1), ("b", 0, 9)],
        [("a", 5, 1), ("b", 9, 9)],
        [("a", 6, 1), ("b", 18, 7)],
    ]


def test_a_prompt_that_finds_no_slot_is_not_overtaken() -> None:
    s = scheduler("prefill_first", slots=1, max_batch=4)
    s.add(Sequence("a", 10, 2))
    step = s.plan()
    assert step is not None
    run(s, step)
    s.add(Sequence("long", 50, 2))
    s.add(Sequence("short", 1, 2))
    assert shape(s.plan()) == [("a", 10, 1)]
    assert [q.id for q in s.waiting] == ["long", "short"]


def test_adopted_sequences_wait_for_a_place_in_the_batch_and_all_get_their_turn() -> None:
    s = scheduler("decode_only", slots=3, max_batch=2)
    for name in "abc":
        seq = Sequence(name, 5, 3, computed=5, emitted=1)
        s.cache.reserve(name, 8)
        s.adopt(seq)
    order = []
    while (step := s.plan()) is not None:
        assert len(step.chunks) <= 2
        order.append([c.seq.id for c in step.chunks])
        run(s, step)
    assert order == [["a", "b"], ["a", "b"], ["c"], ["c"]]


POLICIES: list[Policy] = ["prefill_first", "chunked", "prefill_only"]
LENGTHS = st.lists(st.tuples(st.integers(1, 120), st.integers(1, 6)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    lengths=LENGTHS,
    slots=st.integers(1, 5),
    arrive_every=st.integers(0, 3),
)
def test_every_prompt_ends_in_order_within_budget_and_leaves_no_slot_behind(
    policy: Policy, lengths: list[tuple[int, int]], slots: int, arrive_every: int
) -> None:
    s = scheduler(policy, slots=slots, max_batch=slots, max_batch_tokens=50, token_budget=slots + 7)
    pending = [Sequence(f"{i}", p, m) for i, (p, m) in enumerate(lengths)]
    started: list[str] = []
    tokens: dict[str, int] = dict.fromkeys((q.id for q in pending), 0)
    for turn in range(5000):
        if pending and (arrive_every == 0 or turn % arrive_every == 0):
            s.add(pending.pop(0))
        step = s.plan()
        if step is None:
            if not pending:
                break
            continue
        assert step.prefill_tokens <= 50
        if policy == "chunked":
            assert step.prefill_tokens + step.decode_tokens <= slots + 7, "the budget holds"
        assert len(step.chunks) == len({c.seq.id for c in step.chunks}) <= slots
        assert all(c.count > 0 and c.start == c.seq.computed for c in step.chunks)
        started += [c.seq.id for c in step.chunks if c.start == 0]
        for name in run(s, step):
            tokens[name] += 1
    else:
        pytest.fail("somebody starved")
    assert started == [str(i) for i in range(len(lengths))], "first come, first served"
    want = [1 if policy == "prefill_only" else m for _, m in lengths]
    assert list(tokens.values()) == want
    assert s.cache.used == 0
    assert s.cache.reserved_tokens == 0


@given(st.lists(st.sampled_from(["reserve", "release"]), max_size=60), st.integers(1, 6))
def test_cache_never_gives_a_slot_twice(ops: list[str], slots: int) -> None:
    cache = SlotCache(slots, 100)
    held: dict[str, int] = {}
    for n, op in enumerate(ops):
        if op == "reserve":
            slot = cache.reserve(f"{n}", 10)
            assert (slot is None) == (len(held) == slots)
            if slot is not None:
                assert slot not in held.values()
                held[f"{n}"] = slot
        elif held:
            owner = min(held)
            cache.release(owner)
            del held[owner]
        assert cache.used == len(held)


def test_cache_refuses_what_would_corrupt_its_books() -> None:
    cache = SlotCache(2, 100)
    cache.reserve("a", 10)
    with pytest.raises(ValueError, match="already holds"):
        cache.reserve("a", 10)
    with pytest.raises(ValueError, match="do not fit"):
        cache.reserve("b", 101)
    cache.release("a")
    with pytest.raises(KeyError):
        cache.release("a")
