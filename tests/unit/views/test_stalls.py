"""Stalls against prefill: the count, and what chance would give, by hand and on the virtual clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.measure.lifecycles import server_frame
from pdbench.measure.slo import parse_objectives
from pdbench.stored import StoredRun, open_run
from pdbench.views.devices import Spans, device_names, prefill_spans
from pdbench.views.gantt import chosen, gantt
from pdbench.views.numbers import Numbers
from pdbench.views.stalls import by_chance, lining_up, moments, overlapping, slo_limit_ms, stall_limit_ms
from pdbench.views.timeline import timeline
from tests.unit.measure.helpers import frames, request
from tests.unit.measure.serverhelp import lifecycle, server, step
from tests.unit.storedhelp import interference_run
from tests.unit.views.test_numbers import numbers


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return open_run(str(interference_run(tmp_path_factory.mktemp("interference"))))


def spans(*pairs: tuple[float, float]) -> Spans:
    start, end = np.array([one for one, _ in pairs]), np.array([one for _, one in pairs])
    return Spans(start, end, np.ones(len(pairs)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=8),
    st.lists(st.integers(0, 80), min_size=1, max_size=12),
    st.lists(st.integers(1, 30), max_size=4),
)
def test_chance_is_the_share_of_places(rows: list[tuple[int, int]], begins: list[int], lengths: list[int]) -> None:
    steps = server_frame([step(0, 1000 * start, 1000 * (start + length), 1) for start, length in rows])
    prefill = prefill_spans(steps, 0).get("worker 0", spans())
    places = np.array(begins, dtype=float)
    found = by_chance(np.array(lengths, dtype=float), places, prefill)
    for length, share in zip(lengths, found, strict=True):
        assert share == np.mean(overlapping(places, places + length, prefill))


def test_chance_of_very_many_places_is_that_of_a_sample() -> None:
    """Streams of 64 tokens: the first gap of each, and only that, lies under a prefill."""
    streams = np.arange(8_000.0)
    places = (streams[:, None] + np.arange(64) / 64).ravel()
    prefill = Spans(streams, streams + 0.01, np.ones(len(streams)))
    assert by_chance(np.array([0.001]), places, prefill)[0] == pytest.approx(1 / 64, abs=0.002)


def test_touching_is_not_overlapping() -> None:
    prefill = spans((1.0, 2.0))
    starts, ends = np.array([0.0, 0.0, 1.5, 2.0]), np.array([1.0, 1.1, 1.6, 3.0])
    assert overlapping(starts, ends, prefill).tolist() == [False, True, True, False]


def test_steps_that_touch_are_one_span() -> None:
    steps = server_frame([step(0, 0, 5, 3), step(0, 5, 9, 4), step(0, 20, 30, 1), step(0, 9, 20), step(1, 2, 3, 7)])
    found = prefill_spans(steps, 0)
    assert found["worker 0"].start_s.tolist() == [0, 0.02]
    assert found["worker 0"].end_s.tolist() == [0.009, 0.03]
    assert found["worker 0"].tokens.tolist() == [7, 1]
    assert len(prefill_spans(steps, 0, near_s=0.1)["worker 0"]) == 1
    named = steps.assign(device=["cpu:0", "cpu:0", "", "cpu:0", "cuda:1"])
    assert device_names(named) == {0: "cpu:0", 1: "cuda:1"}


def by_hand(prefill_ms: tuple[float, float], worker: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One stream with a gap of 100 ms from 1120 on; the stamps are the client's."""
    tokens = [1100.0, 1110.0, 1120.0, 1220.0, 1230.0, 1240.0]
    steps = [step(0, one - 10, one) for one in tokens] + [step(worker, *prefill_ms, prefill=50, decode=0)]
    return server(lifecycle("r0", tokens, arrive=1000)), server_frame(steps, "a")


@pytest.mark.parametrize(
    ("prefill", "worker", "aligned", "said"),
    [
        ((1130, 1200), 0, 1, "1 of 1 stall overlaps a prefill on their device: too few to tell"),
        ((1230, 1239), 0, 0, "0 of 1 stall overlap a prefill on their device: too few to tell"),
        ((1130, 1200), 1, 0, "No prefill runs on the devices that decode: 1 stall (gaps above 30 ms"),
    ],
)
def test_one_stall_by_hand(prefill: tuple[float, float], worker: int, aligned: int, said: str) -> None:
    found = numbers(*frames(request(0, 100, [10, 10, 100, 10, 10], request_id="r0")))
    verdict = lining_up(found, *by_hand(prefill, worker))
    assert (verdict.stalls, verdict.known, verdict.aligned) == (1, 1, aligned)
    assert verdict.limit_ms == 30
    assert said in verdict.sentence
    assert verdict.longest_ms == 100


def streams(*stalls: tuple[float, bool], apart: float = 3000) -> tuple[Numbers, pd.DataFrame, pd.DataFrame]:
    """A stream a stall, ``apart`` ms from each other: its length, and whether a prefill of 9 ms lies inside it. One
    prefill more lies in the first stream's quiet part."""
    records, books, log = [], [], [step(0, 1131, 1139, 9, 0)]
    for i, (length, hit) in enumerate(stalls):
        due = 1000 + i * apart
        records.append(request(i, 100, [10] * 9 + [length] + [10] * 9, scheduled=due, request_id=f"r{i}"))
        books.append(lifecycle(f"r{i}", [due + 100], arrive=due))
        log += [step(0, due + 195, due + 204, 9, 0)] if hit else []
    return numbers(*frames(*records)), server(*books), server_frame(log, "a")


MANY_SHORT = [(60.0, False)] * 30


@pytest.mark.parametrize(
    ("stalls", "apart", "moments", "said"),
    [
        (
            [(100.0, True)] * 4,
            3000,
            4,
            "4 of 4 stalls overlap a prefill on their device: too few to tell from chance, by",
        ),
        (
            [(100.0, False)] * 4,
            3000,
            4,
            "0 of 4 stalls overlap a prefill on their device: too few to tell from chance, by",
        ),
        # One prompt stalls all streams of its device: one trial, not forty.
        ([(100.0, True)] * 40, 1, 1, "too few to tell (most came together: they weigh as 1)"),
        ([(100.0, True)] * 20, 3000, 20, "of the time: more than chance (a stall is a gap above 30 ms"),
        ([(100.0, False)] * 40, 3000, 40, "of the time: no more than chance (a stall is"),
        ([(1300.0, True), *MANY_SHORT], 3000, 31, "cannot be told from chance (a few long ones hold most of the time)"),
        ([(900.0, True)] * 12 + MANY_SHORT * 8, 3000, 252, "of the time: more than chance"),
    ],
)
def test_no_more_is_said_than_the_stalls_tell(
    stalls: list[tuple[float, bool]], apart: float, moments: int, said: str
) -> None:
    verdict = lining_up(*streams(*stalls, apart=apart))
    assert (verdict.known, verdict.aligned, verdict.moments) == (len(stalls), sum(hit for _, hit in stalls), moments)
    assert said in verdict.sentence
    assert ("no more than chance" in verdict.sentence) == ("no more than chance" in said)


def test_chance_of_the_time_is_weighted_by_what_was_lost() -> None:
    """A long gap meets a prefill by chance more easily than a short one, and more of the time hangs on it."""
    found, books, log = streams((900.0, False), *[(60.0, False)] * 11, (60.0, True))
    verdict = lining_up(found, books, log)
    assert verdict.expected_share is not None
    assert verdict.expected_lost_share is not None
    assert verdict.expected_lost_share > verdict.expected_share > 0
    steady = lining_up(*streams(*[(100.0, True)] * 12))
    assert steady.expected_lost_share == pytest.approx(steady.expected_share)


def test_what_overlaps_is_one_moment() -> None:
    start, end = np.array([5.0, 0.0, 1.0, 2.0, 9.0, 7.0]), np.array([6.0, 1.5, 2.0, 3.0, 9.5, 9.2])
    assert moments(start, end).tolist() == [2, 0, 0, 1, 3, 3]


@pytest.mark.parametrize("handed_over", [True, False])
def test_the_gap_of_a_handoff_is_named(handed_over: bool) -> None:
    """The first gap of a request spans two workers, if it was handed over; its later ones never do."""
    found = numbers(*frames(request(0, 100, [90, 10, 10, 80, 10, 10, 10], request_id="r0")))
    tokens = [1100.0, 1190.0, 1200.0, 1210.0, 1290.0, 1300.0, 1310.0, 1320.0]
    more = {"transfer": (1110, 1120), "admit": 1130, "workers": (0, 1)} if handed_over else {}
    books = server(lifecycle("r0", tokens, arrive=1000, **more))  # type: ignore[arg-type]
    verdict = lining_up(found, books, server_frame([step(1, 1180, 1190), step(0, 1000, 1100, 9, 0)], "a"))
    assert (verdict.stalls, verdict.handoffs) == (2, int(handed_over))
    assert ("1 of them spans the hand-off" in verdict.sentence) == handed_over


def test_the_same_limit_for_all_arms() -> None:
    slow = numbers(*frames(request(0, 100, [50] * 9)))
    quick = numbers(*frames(request(0, 100, [10] * 11)))
    assert stall_limit_ms([slow, quick]) == 30
    none = pd.DataFrame()
    assert lining_up(slow, none, none).stalls == 0
    assert slo_limit_ms(parse_objectives(["worst_gap p90 <= 100ms", "worst_gap p50 <= 80ms", "tbt p90 <= 9ms"])) == 80
    assert slo_limit_ms(parse_objectives(["ttft p90 <= 9ms"])) is None
    shared = lining_up(slow, none, none, limit_ms=30)
    assert shared.stalls == 9
    assert shared.aligned_share is None
    assert "the server tells no steps" in shared.sentence


@pytest.mark.parametrize("arm", ["colocated", "disaggregated"])
def test_a_picture_of_each_arm(run: StoredRun, arm: str) -> None:
    numbers_, lifecycles, steps = run.numbers(arm), run.lifecycles(arm), run.steps(arm)
    picture = timeline(numbers_, lifecycles, steps, 0)
    assert picture.gaps == len(picture) == len(numbers_.gaps_ms)
    assert picture.notes == ()
    if arm == "colocated":
        # Each long prompt (200 ms) stalls the three streams.
        assert picture.verdict.stalls >= 6
        assert picture.aligned_share == 1
        assert picture.expected_share is not None
        assert picture.expected_share < 0.7
        assert set(picture.prefill) == {"worker 0"}
    else:
        assert "No prefill runs on the devices that decode" in picture.sentence or "no stall" in picture.sentence
        assert set(picture.device) == {"worker 1"}
        assert set(picture.prefill) == {"worker 0"}
        assert picture.devices == ["worker 0", "worker 1"]
    thinned = timeline(numbers_, lifecycles, steps, 0, limit=10)
    assert len(thinned) <= 10
    assert thinned.gap_ms.max() == picture.gap_ms.max()
    assert "gaps are drawn" in thinned.notes[0]


def test_a_server_that_tells_nothing(run: StoredRun) -> None:
    none = pd.DataFrame()
    picture = timeline(run.numbers("colocated"), none, none, 0)
    assert picture.aligned_share is picture.expected_share is None
    assert "not known" in picture.sentence
    assert "no server data" in picture.notes[0]
    empty = timeline(run.numbers("colocated"), none, none, 7)
    assert len(empty) == 0
    assert empty.sentence == "No token gap was measured."
    assert gantt(none, 0) == []


def test_the_gantt_of_a_handed_off_request() -> None:
    row = lifecycle(
        "r0", [60, 85, 95], arrive=2, prefill=(10, 60), transfer=(63, 70), admit=75, workers=(0, 1), end_ns=95_000_000
    )
    failed = lifecycle("r1", [], arrive=5, status="error", end_ns=9_000_000) | {
        "prefill_start_ns": None, "prefill_end_ns": None,
    }  # fmt: skip
    bars = gantt(server(row, failed), 0, devices={0: "cpu:0", 1: "cpu:1"})
    assert [(bar.request, bar.phase, bar.device) for bar in bars] == [
        ("r0", "queue", ""), ("r0", "prefill", "cpu:0"), ("r0", "wait", ""), ("r0", "transfer", ""), ("r0", "wait", ""),
        ("r0", "decode", "cpu:1"), ("r1", "queue", ""),
    ]  # fmt: skip
    assert [bar.start_s for bar in bars] == pytest.approx([0, 0.008, 0.058, 0.061, 0.068, 0.073, 0.003])
    assert bars[5].end_s == pytest.approx(0.093)


def test_the_gantt_says_whom_it_shows() -> None:
    rows = [lifecycle(f"r{i}", [i * 10 + (500 if i == 30 else 5)], arrive=i * 10) for i in range(50)]
    table = server(*rows)
    kept, said = chosen(table, 0, 10)
    assert kept.tolist() == list(range(25, 35))
    assert said == "10 of 50 requests: those around the longest wait for a first token"
    assert chosen(table, 0, 60)[1] == "all 50 requests of the run"
    assert chosen(table.assign(warmup=[True] * 45 + [False] * 5), 0)[1] == "all 5 requests of the run"
    assert len(chosen(table, 3)[0]) == 0


def test_requests_that_the_server_forgot(run: StoredRun, tmp_path: Path) -> None:
    """Its books are bounded: of what fell out, the device is not known, and it is said."""
    arm = "colocated"
    verdict = lining_up(run.numbers(arm), run.lifecycles(arm).iloc[1:], run.steps(arm))
    assert verdict.known < verdict.stalls
    assert f"of {verdict.stalls - verdict.known} more the device is not known" in verdict.sentence
    assert "requests of" in timeline(run.numbers(arm), run.lifecycles(arm).iloc[1:], run.steps(arm), 0).notes[0]
