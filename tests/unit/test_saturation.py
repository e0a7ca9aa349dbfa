"""The closed-loop run: same work for every arm, and throughput only while all streams are busy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pdbench.fleetspec import FleetSpec
from pdbench.run import RunResult
from pdbench.saturation import WAVES, _crew, closed_plan, concurrency_of, saturation_entry
from pdbench.serverside import ServerSide
from pdbench.settings import Settings
from pdbench.workload.plan import make_plan
from tests.unit.measure.helpers import MS, frames, request
from tests.unit.workload.helpers import workload


def test_the_plan_is_closed() -> None:
    law = {"distribution": "uniform", "low": 1, "high": 500}
    plan = make_plan(workload(prompt_tokens=law), seed=1)
    closed = closed_plan(plan, 16)
    assert len(closed) == WAVES * 16
    assert not closed.scheduled_ns.any()
    assert not closed.warmup.any()
    assert np.array_equal(closed.prompt_tokens[:60], plan.prompt_tokens[10:70]), "the measured lengths, in turn"


def test_the_closed_plan_shares_what_the_plan_shares() -> None:
    plan = make_plan(workload(prefix={"tokens": 100}, num_requests=3, warmup=1), seed=1)
    plan = replace(plan, texts=("warm", "a", "b", "c"))
    closed = closed_plan(plan, 2)
    assert closed.texts == ("a", "b", "c", "Round 1. a", "Round 1. b", "Round 1. c", "Round 2. a", "Round 2. b")
    assert closed.segments[:3] == plan.segments[1:]
    again = [{name for pieces in closed.segments[at : at + 3] for name, _ in pieces} for at in (0, 3, 6)]
    assert [len(names) for names in again] == [1, 1, 1]
    assert len(set.union(*again)) == 3, "a later round must not find the cache filled by an earlier one"


@pytest.mark.parametrize(("streams", "carried"), [(2, True), (1, False)])
def test_the_workers_carry_it_if_each_has_a_stream(streams: int, carried: bool) -> None:
    crew: Any = object()
    stage: Any = SimpleNamespace(crew=crew, settings=Settings(fleet=FleetSpec(processes=2)))
    assert _crew(stage, streams) is (crew if carried else None)
    stage.settings = Settings()
    assert _crew(stage, 1) is crew


def arm(*workers: dict[str, Any]) -> Any:
    return SimpleNamespace(backend=SimpleNamespace(checked={"workers": list(workers)} if workers else {}))


def test_streams_fill_the_largest_arm() -> None:
    mixed = arm({"role": "mixed", "max_batch": 8}, {"role": "mixed", "max_batch": 8})
    split = arm({"role": "prefill", "max_batch": 64}, {"role": "decode", "max_batch": 12})
    assert concurrency_of([mixed, split]) == 16
    assert concurrency_of([arm()]) == 32


def result(
    *records: Any, status: Any = "complete", steps: tuple[dict[str, Any], ...] = (), died: bool = False
) -> RunResult:
    state = {"workers": [{"index": 0, "device": "cpu:0"}, {"index": 1, "device": "cpu:1"}]}
    side = ServerSide(state, steps=steps, window_ns=(0, 1)) if steps else ServerSide()
    return RunResult("a", 0, len(records), status, "kernel", *frames(*records), None, side, died)


def streams() -> list[Any]:
    """Two streams, 1 s a request, two tokens at 500 and 1000 ms: all sent by 3 s, all ended by 4 s."""
    return [request(2 * k + s, 500 + 1000 * k, [500], scheduled=0, lag=1000 * k) for k in range(4) for s in range(2)]


def test_only_the_full_window_counts() -> None:
    steps = (
        {"worker": 0, "start_ns": 0, "end_ns": 2000 * MS},
        {"worker": 1, "start_ns": 2000 * MS, "end_ns": 9000 * MS},
    )
    entry = saturation_entry(result(*streams(), steps=steps), 2, ["cpu:0", "cpu:1"], 2)
    assert entry["window_s"] == 2.0  # from the first end (1 s) to the last send (3 s)
    assert entry["output_tokens_per_s"] == 4.0  # two streams, two tokens a second each
    assert entry["output_tokens_per_s_per_device"] == 2.0
    assert entry["requests_per_s"] == 2.0
    assert entry["device_busy"] == [0.5, 0.5]
    assert entry["requests"] == {"scheduled": 8, "ok": 8, "failed": 0, "warmup": 0}
    assert not any(key.endswith("_ms") for key in entry), "no latency of a closed loop is reported"


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (result(*streams(), status="interrupted"), "ended early"),
        (result(*streams(), died=True), "the server died"),
        (result(*[request(i, None, status="error") for i in range(4)]), "too few requests completed"),
        (result(request(0, 10, [10])), "too few requests completed"),
    ],
)
def test_no_figure_without_a_window(run: RunResult, reason: str) -> None:
    entry = saturation_entry(run, 1, [], 2)
    assert reason in entry["warnings"][0]
    assert "output_tokens_per_s" not in entry
