"""The trace that Perfetto opens: valid, every slice on a track of its own, every hand-off an arrow that binds."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench import schema
from pdbench.report.perfetto import lanes_of, trace
from pdbench.stored import StoredRun, open_run
from tests.unit.measure.helpers import request
from tests.unit.measure.serverhelp import lifecycle, step
from tests.unit.storedhelp import interference_run, write

Event = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return open_run(str(interference_run(tmp_path_factory.mktemp("perfetto"))))


@pytest.fixture(scope="module")
def made(run: StoredRun) -> Event:
    return trace(run)


def check(document: Event) -> None:
    jsonschema.Draft202012Validator(schema.load("perfetto")).validate(document)
    timed = [event["ts"] for event in document["traceEvents"] if event["ph"] != "M"]
    assert timed == sorted(timed)
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    owners: dict[int, set[int]] = defaultdict(set)
    for event in document["traceEvents"]:
        owners[event["tid"]].add(event["pid"])
    assert all(len(pids) == 1 for pids in owners.values())
    for slices in tracks.values():
        for (_, end), (start, _) in pairwise(slices):
            assert start >= end - 2e-3, "slices of one track overlap"
    open_: dict[tuple[int, str], list[str]] = defaultdict(list)
    for event in document["traceEvents"]:
        names = open_[event["pid"], event.get("id", "")]
        if event["ph"] == "b":
            names.append(event["name"])
        elif event["ph"] == "e":
            assert names.pop() == event["name"]
        elif event["ph"] == "n":
            assert names
    assert not any(open_.values())
    flows(document)


def flows(document: Event) -> dict[str, list[Event]]:
    """Arrows by id; each of s, t, f once, forward in time, and each inside a slice of its own track."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] in "stf":
            found[event["id"]].append(event)
    for arrow in found.values():
        assert [event["ph"] for event in arrow] == ["s", "t", "f"]
        for event in arrow:
            around = [
                one
                for one in document["traceEvents"]
                if one["ph"] == "X" and (one["pid"], one["tid"]) == (event["pid"], event["tid"])
                and one["ts"] <= event["ts"] <= one["ts"] + one["dur"]
            ]  # fmt: skip
            assert around, f"{event} binds to no slice"
    return found


def test_it_is_valid_and_keeps_every_flow(run: StoredRun, made: Event) -> None:
    check(made)
    handed = run.lifecycles("disaggregated")
    assert len(flows(made)) == int(handed["transfer_end_ns"].notna().sum()) == 5
    names = {event["args"]["name"] for event in made["traceEvents"] if event["name"] == "process_name"}
    assert names == {"colocated, pair 1", "disaggregated, pair 1"}
    steps = [event for event in made["traceEvents"] if event.get("cat") == "step"]
    assert len(steps) == len(run.steps("colocated")) + len(run.steps("disaggregated"))
    assert {event["name"] for event in steps} == {"prefill", "decode"}
    assert sum(event["name"] == "request" and event["ph"] == "b" for event in made["traceEvents"]) == 10


def test_counters_come_back_to_zero(made: Event) -> None:
    last = {
        (event["pid"], event["name"]): event["args"]["requests"] for event in made["traceEvents"] if event["ph"] == "C"
    }
    assert {name for _, name in last} == {"waiting for prefill", "in hand-off", "decoding"}
    assert set(last.values()) == {0}
    assert max(event["args"]["requests"] for event in made["traceEvents"] if event["ph"] == "C") >= 3


def test_a_cut_is_said(run: StoredRun) -> None:
    cut = trace(run, limit=2)
    check(cut)
    assert cut["otherData"]["notes"][-2:] == [
        "colocated: the first 2 of 5 requests", "disaggregated: the first 2 of 5 requests",
    ]  # fmt: skip
    assert sum(event["name"] == "request" and event["ph"] == "b" for event in cut["traceEvents"]) == 4
    full = sum(event.get("cat") == "step" for event in trace(run)["traceEvents"])
    assert sum(event.get("cat") == "step" for event in cut["traceEvents"]) < full


def test_steps_are_cut_too(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.report.perfetto.STEPS", 40)
    cut = trace(run)
    check(cut)
    assert sum(event.get("cat") == "step" for event in cut["traceEvents"]) == 80
    assert [note.partition(",")[0] for note in cut["otherData"]["notes"][-2:]] == [
        "colocated: the first 40 steps", "disaggregated: the first 40 steps",
    ]  # fmt: skip


def test_steps_are_cut_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server tells its workers one after the other: a cut by row would leave the second one out."""
    monkeypatch.setattr("pdbench.report.perfetto.STEPS", 5)
    log = [
        {**step(worker, 1000 + 10 * i, 1005 + 10 * i), "device": f"cpu:{worker}"} for worker in (0, 1) for i in range(9)
    ]
    log.append({**step(2, 3000, 3005), "device": "cpu:2"})
    found = trace(open_run(str(write(tmp_path, [("a", 0, [request(0, 10, [5])], [], log)]))))
    check(found)
    starts = [event["ts"] for event in found["traceEvents"] if event.get("cat") == "step"]
    assert starts == [0, 0, 10_000, 10_000, 20_000]
    assert found["otherData"]["notes"][-1] == "a: the first 5 steps, in pair 1 those of the first 0.02 s"
    named = {event["args"]["name"] for event in found["traceEvents"] if event["name"] == "thread_name"}
    assert named >= {"cpu:0 steps", "cpu:1 steps", "cpu:2 steps"}


def test_what_a_client_alone_knows(tmp_path: Path) -> None:
    """A server that tells nothing, a failed request, and names that are not ours."""
    records = [request(0, 10, [5, 7], request_id="<script>"), request(1, None, status="error", end_ns=None)]
    document = trace(open_run(str(write(tmp_path, [("</script>", 0, records, [], [])]))))
    check(document)
    shown = [event["name"] for event in document["traceEvents"] if event["ph"] == "b"]
    assert sorted(shown) == ["request", "request", "streaming", "waiting for the first token"]
    assert "no server data" in document["otherData"]["notes"][0]


def test_broken_and_instant_handoffs(tmp_path: Path) -> None:
    """A link that costs nothing, a transfer that never ended, a request that was never prefilled."""
    instant = lifecycle(
        "r0", [1060, 1085], arrive=1002, prefill=(1010, 1060), transfer=(1060, 1060), admit=1060, workers=(0, 1),
        end_ns=1_085_000_000,
    )  # fmt: skip
    broken = lifecycle("r1", [1070], arrive=1002, prefill=(1060, 1070), status="error", end_ns=1_090_000_000) | {
        "transfer_start_ns": 1_071_000_000
    }
    never = lifecycle("r2", [], arrive=1003, status="error", end_ns=1_004_000_000) | {
        "prefill_start_ns": None, "prefill_end_ns": None, "prefill_worker": None,
    }  # fmt: skip
    records = [request(0, 61, [25], request_id="r0")]
    records += [request(i, None, status="error", request_id=f"r{i}", scheduled=1001) for i in (1, 2)]
    document = trace(open_run(str(write(tmp_path, [("a", 0, records, [instant, broken, never], [])]))))
    check(document)
    assert len(flows(document)) == 1


def test_an_empty_run(tmp_path: Path) -> None:
    document = trace(open_run(str(write(tmp_path, []))))
    check(document)
    assert document["traceEvents"] == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30))
def test_lanes_do_not_overlap_and_are_few(rows: list[tuple[int, int]]) -> None:
    start = np.array([float(one) for one, _ in rows])
    end = start + np.array([float(length) for _, length in rows])
    lanes = lanes_of(start, end)
    for lane in set(lanes.tolist()):
        mine = sorted(zip(start[lanes == lane], np.maximum(end, start + 1)[lanes == lane], strict=True))
        assert all(one[1] <= other[0] for one, other in pairwise(mine))
    deepest = max((int(((start <= at) & (np.maximum(end, start + 1) > at)).sum()) for at in start), default=0)
    assert len(set(lanes.tolist())) == deepest


@pytest.mark.parametrize(
    "bad",
    [
        {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "step", "args": {}},
        {"ph": "X", "pid": 1, "tid": 0, "ts": 0, "name": "a", "cat": "step", "args": {}, "dur": 1},
        {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "step", "args": {}, "dur": 0},
        {"ph": "s", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "hand-off"},
        {"ph": "f", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "hand-off", "id": "1"},
        {"ph": "s", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "hand-off", "id": "1", "bp": "e"},
        {"ph": "b", "pid": 1, "tid": 1, "ts": 0, "name": "a", "cat": "request"},
        {"ph": "b", "pid": 1, "tid": 1, "ts": -1, "name": "a", "cat": "request", "id": "1"},
        {"ph": "C", "pid": 1, "tid": 1, "ts": 0, "name": "a", "args": {"requests": -1}},
        {"ph": "M", "pid": 1, "tid": 1, "ts": 0, "name": "surprise", "args": {}},
        {"ph": "Z", "pid": 1, "tid": 1, "ts": 0, "name": "a"},
    ],
)
def test_what_a_trace_must_not_hold(made: Event, bad: Event) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({**made, "traceEvents": [bad]})
