"""What falls due when, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.load.offer import NEVER_NS, ClosedLoop, OpenLoop


def test_an_open_loop_gives_out_its_instants() -> None:
    offer = OpenLoop([10, 10, 30])
    assert (offer.due_ns, offer.last_ns, offer.coming(29), offer.coming(30)) == (10, 30, 2, 3)
    assert offer.pop(9) is None
    assert [offer.pop(20), offer.pop(20), offer.pop(20)] == [10, 10, None]
    offer.freed(15)
    assert (offer.due_ns, offer.over) == (30, False)
    assert offer.pop(99) == 30
    assert (offer.pop(99), offer.over, offer.due_ns, offer.coming(999)) == (None, True, NEVER_NS, 0)


def test_a_closed_loop_sends_when_a_stream_is_free() -> None:
    offer = ClosedLoop([(100, 2)], 4)
    assert (offer.due_ns, offer.last_ns, offer.coming(99), offer.coming(100)) == (100, NEVER_NS, 0, 2)
    assert offer.pop(99) is None
    assert [offer.pop(101), offer.pop(101), offer.pop(101)] == [100, 100, None]
    assert offer.due_ns == NEVER_NS
    offer.freed(150)  # the kernel's stamp of the end, seen at 160
    assert offer.due_ns == 150
    assert [offer.pop(160), offer.pop(160)] == [150, None]
    assert not offer.over
    offer.freed(170)
    assert offer.pop(170) == 170
    assert (offer.over, offer.last_ns, offer.due_ns) == (True, 170, NEVER_NS)


def test_the_number_of_streams_follows_the_curve() -> None:
    offer = ClosedLoop([(0, 1), (10, 3), (20, 1), (30, 0)], 100)
    assert offer.last_ns == 30
    assert [offer.pop(5), offer.pop(5)] == [0, None]
    assert offer.due_ns == 10
    assert [offer.pop(12), offer.pop(12), offer.pop(12)] == [10, 10, None]
    assert offer.pop(21) is None  # one stream is enough now; three are open
    offer.freed(22)
    offer.freed(23)
    assert offer.pop(24) is None
    offer.freed(25)
    assert offer.pop(26) == 25
    offer.freed(29)
    assert offer.pop(31) is None  # the curve is over before the free stream was seen
    assert offer.over
    assert offer.pop(99) is None


def test_a_stop_gives_out_nothing_more() -> None:
    for offer in (OpenLoop([1, 2]), ClosedLoop([(1, 2)], 2)):
        offer.stop()
        assert (offer.pop(9), offer.over, offer.due_ns) == (None, True, NEVER_NS)


@given(
    curve=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6)), min_size=1, max_size=6),
    steps=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60),
    count=st.integers(1, 40),
)
def test_never_more_streams_than_the_curve_says(
    curve: list[tuple[int, int]], steps: list[tuple[int, bool]], count: int
) -> None:
    """Requests start only while fewer streams are open than wanted at that time, and as many as that."""
    at, instants = 0, []
    for gap, streams in curve:
        at += gap
        instants.append((at, streams))
    offer = ClosedLoop(instants, count)
    now = given_out = busy = 0
    for ahead, end in steps:
        now += ahead
        if end and busy:
            busy -= 1
            offer.freed(now)
        wanted = next((streams for start, streams in reversed(instants) if start <= now), 0)
        while (due := offer.pop(now)) is not None:
            assert due <= now
            given_out += 1
            busy += 1
            assert busy <= wanted
        assert busy >= min(wanted, busy + count - given_out)
    assert given_out <= count


@pytest.mark.parametrize(
    ("at_ns", "factor", "now", "left"),
    [
        (100, 2.0, 50, [100, 150, 200]),
        (100, 0.5, 50, [100, 300, 500]),
        (150, 2.0, 50, [100, 175, 225]),  # what is due before the instant stays
        (50, 2.0, 150, [100, 175, 225]),  # told late: nothing falls due in the past
        (400, 2.0, 50, [100, 200, 300]),  # after the end there is nothing to change
        (0, 1.0, 0, [100, 200, 300]),
    ],
)
def test_what_is_left_comes_faster_or_slower(at_ns: int, factor: float, now: int, left: list[int]) -> None:
    given = [10, 100, 200, 300]
    offer = OpenLoop(given)
    assert offer.pop(20) == 10
    assert offer.retime(at_ns, factor, now) == max(at_ns, now), "the instant that it took is told"
    assert (offer.due_ns, offer.last_ns, offer.coming(999)) == (left[0], left[-1], 3)
    assert [offer.pop(999) for _ in range(4)] == [*left, None]
    assert given == [10, 100, 200, 300], "the plan itself stays"
    offer.retime(at_ns, factor, now)
    assert (offer.due_ns, offer.over) == (NEVER_NS, True)


def test_a_closed_loop_has_no_rate() -> None:
    offer = ClosedLoop([(100, 1)], 2)
    assert offer.retime(0, 9.0, 50) == 0
    assert (offer.due_ns, offer.pop(99)) == (100, None)


@given(
    gaps=st.lists(st.integers(0, 10**9), min_size=1, max_size=30),
    edits=st.lists(st.tuples(st.integers(0, 2 * 10**9), st.floats(0.01, 100.0)), max_size=5),
    step=st.integers(1, 10**9),
)
def test_no_request_is_lost_doubled_or_reordered_by_edits(
    gaps: list[int], edits: list[tuple[int, float]], step: int
) -> None:
    due, at = [], 0
    for gap in gaps:
        at += gap
        due.append(at)
    offer, now, given_out = OpenLoop(due), 0, []
    for ahead_ns, factor in edits:
        while (one := offer.pop(now)) is not None:
            given_out.append(one)
        kept = [one for one in offer._due[offer._at :] if one <= now + ahead_ns]
        offer.retime(now + ahead_ns, factor, now)
        left = offer._due[offer._at :]
        assert left[: len(kept)] == kept
        assert all(one >= now + ahead_ns for one in left[len(kept) :])
        now += step
    while (one := offer.pop(1 << 61)) is not None:
        given_out.append(one)
    assert len(given_out) == len(due)
    assert given_out == sorted(given_out)
    assert offer.over
