"""The judges of the benchmarks must be able to say no."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy, capacity, overload, workers
from benchmarks.capacity import EVEN, Point, achieved_rate, peak_rss_mb
from benchmarks.common import ClientRun, Usage
from benchmarks.judge import judge
from tests.unit.benchmarks.test_judge import seen, served

WRITES = [50.0, 60.0, 70.0, 80.0, 90.0]


def run(failed: int = 0, outcome: Any = None) -> ClientRun:
    return ClientRun("pdbench, kernel clock", [], 0.0, 0.0, Usage(), failed, outcome)


def test_the_rate_is_what_the_server_wrote() -> None:
    """Two streams that run together for 30 ms, an event every 10 ms each: asked for were 1000 events/s."""
    log = [served("a", WRITES), served("b", [at + 10 for at in WRITES])]
    assert achieved_rate(log) == pytest.approx(200)
    assert math.isnan(achieved_rate([]))
    assert math.isnan(achieved_rate([served("a", [1, 2]), served("b", [5, 6])]))


@pytest.mark.parametrize(
    ("achieved", "failed", "held"), [(950, 0, True), (949, 0, False), (math.nan, 0, False), (1000, 1, False)]
)
def test_a_client_is_not_credited_with_a_rate_that_never_was(achieved: float, failed: int, held: bool) -> None:
    judged = judge([seen("a", WRITES)], {"a": served("a", WRITES)})
    point = Point("kernel", 1000, run(failed), judged, 1.0, achieved)
    assert point.holds(EVEN) == held
    assert capacity.document_of(point)["achieved"] == (None if math.isnan(achieved) else achieved)


def test_a_peer_is_credited_with_its_best_rate_and_we_with_the_last_before_a_miss() -> None:
    judged = judge([seen("a", WRITES)], {"a": served("a", WRITES)})
    points = [
        Point(client, rate, run(failed), judged, 1.0, float(rate))
        for client in ("kernel", "aiohttp")
        for rate, failed in ((1000, 0), (2000, 1), (3000, 0), (4000, 1))
    ]
    assert capacity.highest(points, "kernel", EVEN) == 1000
    assert capacity.highest_ever(points, "aiohttp", EVEN) == 3000
    assert capacity.highest_ever(points[:4], "aiohttp", EVEN) == 0


def test_memory_that_was_not_measured_is_not_little() -> None:
    facts = SimpleNamespace(peak_rss_bytes=90_000_000)
    assert peak_rss_mb(run(outcome=SimpleNamespace(facts=facts))) == 90
    assert math.isnan(peak_rss_mb(run()))
    assert math.isnan(peak_rss_mb(run(outcome=SimpleNamespace(facts=None))))


def test_failures_and_missing_streams_are_targets_of_accuracy() -> None:
    assert not accuracy.failed_target("truth", 100, run(failed=1)).met
    assert accuracy.failed_target("truth", 100, run()).met
    found = judge([seen("a", WRITES), seen("b", [50.0])], {"a": served("a", WRITES), "b": served("b", WRITES)})
    assert [target.name for target in accuracy.stall_targets(found) if not target.met] == [
        "stalls: streams seen otherwise than written"
    ]


@pytest.mark.parametrize(
    ("clients", "requests", "wrong"),
    [
        ([WRITES], 1, False),
        ([WRITES], 2, True),  # one of two did not end well, on a server that answers all
        ([[at + 2 for at in WRITES]], 1, True),
        ([], 0, True),
        ([WRITES[:2]], 1, True),
    ],
)
def test_a_run_that_lost_requests_is_wrong(clients: list[list[float]], requests: int, wrong: bool) -> None:
    requested = [seen(f"r{i}", times) for i, times in enumerate(clients)]
    found = judge(requested, {one.request_id: served(one.request_id, WRITES) for one in requested})
    assert overload.is_wrong(found, requests) == wrong
    assert overload.is_wrong(None, requests)


ONE = {"name": "w-1", "lost": True}
OTHER = {"name": "w-2", "lost": False}


@pytest.mark.parametrize(
    ("reasons", "listed", "named"),
    [
        (["a: 1 load worker lost during the run: w-1 (pair 1)"], [ONE, OTHER], True),
        (["a: 1 load worker lost during the run"], [ONE, OTHER], False),
        (["a: 1 load worker lost during the run: w-2 (pair 1)"], [ONE, OTHER], False),
        (["the client was late; add a worker (w-1)"], [ONE, OTHER], False),
        (["a: 1 load worker lost during the run: w-1 (pair 1)"], [OTHER], False),
        ([], [], False),
    ],
)
def test_a_lost_worker_must_be_named(reasons: list[str], listed: list[dict[str, Any]], named: bool) -> None:
    assert workers.names_the_lost(reasons, listed) == named


def test_nothing_is_no_log() -> None:
    assert not np.asarray(judge([], {}).stamp).size
