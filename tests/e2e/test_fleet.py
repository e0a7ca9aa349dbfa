"""Workers for real: two of them carry one plan, one of them is killed, and plain ``locust -f`` does the same work.

Counts and instants of the plan are asserted, not latencies: this machine may be busy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pdbench.fleetspec import FleetSpec
from pdbench.load.delta import Delta
from pdbench.load.fleet import Fleet
from pdbench.load.steer import run_load
from tests.e2e.test_load_engine import Truth, free_port, job, statuses, until
from tests.e2e.transcript import ROOT, Desk, tiny

pytestmark = pytest.mark.e2e


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_two_workers_are_one_plan_and_a_killed_one_is_named(tmp_path: Path) -> None:
    truth = Truth(tmp_path)
    said: list[str] = []
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Fleet(FleetSpec(processes=2), said.append) as fleet:
        fleet.gather()
        deltas: list[Delta] = []
        asked = job(tmp_path, truth.url, n=61, gap_ms=10)
        outcome = run_load(asked, on_delta=deltas.append, fleet=fleet)
        assert (outcome.status, statuses(outcome)) == ("complete", ["ok"] * 61)
        assert [record.index for record in outcome.records] == asked.index
        assert [record.scheduled_ns - outcome.t0_ns for record in outcome.records] == asked.scheduled_ns
        log = truth.log()
        assert {record.request_id for record in outcome.records} <= set(log), "the server saw each of them"
        assert [(one.rank, one.requests, one.lost) for one in outcome.workers] == [(0, 31, False), (1, 30, False)]
        assert [one.clock_offset_ns for one in outcome.workers] == [0, 0], "one host, one clock"
        assert all(one.rtt_ns > 0 for one in outcome.workers)
        assert (deltas[-1].planned, deltas[-1].ok) == (61, 61)
        assert outcome.locust.requests == 61
        assert outcome.facts is not None

        pids = {one.name: one.pid for one in outcome.workers}
        victim = outcome.workers[1].name
        engines = psutil.Process(pids[victim]).children()

        def kill(delta: Delta) -> None:
            if delta.ok > 20 and victim in pids:
                engines.extend(psutil.Process(pids[victim]).children())
                os.kill(pids.pop(victim), signal.SIGKILL)

        broken = run_load(job(tmp_path, truth.url, n=240, gap_ms=10), on_delta=kill, fleet=fleet)
        assert (broken.status, broken.workers_lost) == ("engine_died", [victim])
        assert "signal 9" in broken.reason
        found = {one.name: one.requests for one in broken.workers}
        assert 0 < found[victim] < 120, "what it had shipped is kept"
        assert max(found.values()) == 120, "the other one went on to its end"
        assert len(broken.records) == sum(found.values())
        until(lambda: not any(one.is_running() for one in engines), 10)

        again = run_load(job(tmp_path, truth.url, n=10), fleet=fleet)
        assert (again.status, len(again.records)) == ("complete", 10), "a local worker is started again"
    truth.kill()
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
    assert not list(tmp_path.glob("journal.*"))


def test_too_few_workers_is_an_error_that_says_who_is_there(desk: Desk, tmp_path: Path) -> None:
    typed = desk.type(
        *("run", "--base-url", "http://127.0.0.1:9", "--expect-workers", "1", "--port", str(free_port())),
        *("--worker-timeout", "100ms", "-o", str(tmp_path / "out"), "-q"),
    )
    assert typed.code == 2, typed
    assert "0 of 1 workers" in typed.err
    assert "pdbench worker --master" in typed.err
    assert not list((tmp_path / "out").glob("*"))


def test_plain_locust_runs_the_same_engine(desk: Desk, tmp_path: Path) -> None:
    where = desk.type("locustfile").out.strip()
    with desk.fake(tmp_path) as url:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", where, "--headless", "--only-summary", "--host", url),
                *("--pdbench-workload", tiny(tmp_path), "--pdbench-rate", "40", "--pdbench-output", str(tmp_path)),
            ],
            cwd=ROOT, env=desk.env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
    assert "ttft p90 <= 2s" in done.stdout, done.stderr
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())
    assert summary["arms"]["server"]["requests"]["scheduled"] == 20
    assert summary["workload"]["arrivals"]["rate"] == 40
    assert done.returncode == (0 if summary["validity"]["status"] == "VALID" else 12)
    assert "Shutting down" in done.stderr
    assert not desk.leftovers()
