"""What falls due when, without a clock."""

from __future__ import annotations

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
