"""The load engine against a server whose every write instant is known (``benchmarks/truth_server.py``).

Counts and orders are asserted, not times: this machine may be busy.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from pdbench.errors import UsageError
from pdbench.load.delta import Delta
from pdbench.load.histogram import LiveHistogram
from pdbench.load.job import Job
from pdbench.load.journal import read_journal
from pdbench.load.steer import LoadOutcome, run_load
from pdbench.workload.prompts import PromptMaker

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000


class Truth:
    """A running truth server."""

    def __init__(self, directory: Path, ttft_ms: float = 8.0, gap_ms: float = 4.0) -> None:
        port_file = directory / "port.json"
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "benchmarks" / "truth_server.py")),
                *("--port-file", str(port_file), "--ttft-ms", str(ttft_ms), "--gap-ms", str(gap_ms)),
            ],
            stdin=subprocess.PIPE,
        )
        until(port_file.exists)
        self.url = f"http://127.0.0.1:{json.loads(port_file.read_text())['port']}"

    def log(self) -> dict[str, dict[str, Any]]:
        answer = requests.get(f"{self.url}/log", timeout=10).json()
        return {entry["request_id"]: entry for entry in answer["requests"]}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def until(condition: Any, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Truth]:
    server = Truth(tmp_path_factory.mktemp("truth"))
    yield server
    server.kill()


_runs = iter(range(1000))


def job(tmp_path: Path, url: str, n: int = 6, gap_ms: int = 5, tokens: int = 4, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "base_url": url,
        "model": "truth",
        "prompts": PromptMaker(salt="e2e"),
        "index": list(range(n)),
        "scheduled_ns": [i * gap_ms * MS for i in range(n)],
        "prompt_tokens": [16] * n,
        "output_tokens": [tokens] * n,
        "warmup": [i == 0 for i in range(n)],
        "journal": str(tmp_path / "journal"),
        "run_id": f"run{next(_runs)}",
        "drain_timeout_s": 20.0,
        "request_timeout_s": 20.0,
    }
    return Job(**{**fields, **changes})


def statuses(outcome: LoadOutcome) -> list[str]:
    return [record.status for record in outcome.records]


@pytest.mark.parametrize("clock", ["kernel", "user"])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_every_request_is_accounted_for_and_agrees_with_the_server(
    tmp_path: Path, truth: Truth, clock: str, api: str
) -> None:
    if clock == "kernel" and not sys.platform.startswith("linux"):
        pytest.skip("kernel stamps are Linux's")
    deltas: list[Delta] = []
    asked = job(tmp_path, truth.url, n=40, tokens=8, clock=clock, api=api)
    outcome = run_load(asked, on_delta=deltas.append)
    assert outcome.status == "complete"
    assert outcome.clock == clock
    assert [record.index for record in outcome.records] == asked.index
    assert statuses(outcome) == ["ok"] * 40
    log = truth.log()
    for record, offset in zip(outcome.records, asked.scheduled_ns, strict=True):
        served = log[record.request_id]
        assert record.scheduled_ns == outcome.t0_ns + offset
        assert record.sent_ns is not None
        assert record.end_ns is not None
        assert record.scheduled_ns <= record.sent_ns <= served["received_ns"]
        # A stamp cannot be earlier than the write it stamps; 20 us for the clock offset's own error.
        assert len(record.chunk_ns) == len(served["write_ns"]) == 8
        for stamp, written in zip(record.chunk_ns, served["write_ns"], strict=True):
            assert written - 20_000 <= stamp <= written + 2_000 * MS
        assert record.chunk_ns == sorted(record.chunk_ns)
        assert record.chunk_ns[-1] <= record.end_ns
        assert (record.prompt_tokens, record.output_tokens) == (16, 8)
        assert record.prompt_tokens == served["prompt_tokens"]
        assert record.chunk_tokens == [1] * 8
        assert record.warmup == (record.index == 0)
        assert len(record.user_lag_ns) == (record.reads if clock == "kernel" else 0)
        assert all(lag >= 0 for lag in record.user_lag_ns)
    check_totals(outcome, deltas)


def check_totals(outcome: LoadOutcome, deltas: list[Delta]) -> None:
    n = len(outcome.records)
    last = deltas[-1]
    assert (last.planned, last.offered, last.sent, last.ok, last.failed) == (n, n, n, n, 0)
    assert (last.in_flight, last.waiting) == (0, 0)
    assert last.tokens == sum(sum(r.chunk_tokens) for r in outcome.records)
    assert sum(len(d.done) for d in deltas) == n
    view = LiveHistogram()
    for delta in deltas:
        view.merge(delta.tbt_hdr)
    assert view.count == sum(len(r.chunk_ns) - 1 for r in outcome.records if not r.warmup)
    assert (outcome.locust.requests, outcome.locust.failures) == (n, 0)
    assert outcome.locust.version.startswith("2.")
    assert outcome.facts is not None
    assert outcome.facts.cpu_s > 0
    assert outcome.facts.reads == sum(r.reads for r in outcome.records)
    assert outcome.dispatch_lag.count == n
    assert outcome.client_lag.count > 0


@pytest.mark.parametrize(
    ("model", "status", "says", "chunks"),
    [
        ("role-first", "ok", "", 4),
        ("reasoning", "ok", "", 4),
        ("usage-in-last", "ok", "", 4),
        ("no-usage", "ok", "", 4),
        ("no-done", "ok", "", 4),
        ("until-close", "ok", "", 4),
        ("pairs", "ok", "", 4),
        ("stale", "ok", "", 4),
        ("broken-off", "error", "closed the connection after 2 chunks", 2),
        ("ended-early", "error", "after 2 of 4 tokens", 2),
        ("error-inside", "error", "CUDA out of memory", 2),
        ("no-token", "error", "without a token", 0),
        ("oversized", "error", "larger than", 0),
        ("reject", "rejected", "HTTP 429: queue is full", 0),
        ("overloaded", "rejected", "HTTP 503: draining", 0),
        ("fails", "error", "HTTP 500: boom", 0),
        ("redirect", "error", "redirects are not followed", 0),
        ("json", "error", "not an event stream", 0),
        ("gzip", "error", "compressed (gzip)", 0),
        ("no-http", "error", "not HTTP", 0),
    ],
)
def test_what_servers_do_to_clients(
    tmp_path: Path, truth: Truth, model: str, status: str, says: str, chunks: int
) -> None:
    outcome = run_load(job(tmp_path, truth.url, n=6, gap_ms=60, model=model, api="chat"))
    assert outcome.status == "complete"
    assert statuses(outcome) == [status] * 6
    log = truth.log()
    for record in outcome.records:
        assert says in record.error
        assert bool(record.error) == (status != "ok")
        assert len(record.chunk_ns) == len(log[record.request_id]["write_ns"]) == chunks
        for stamp, written in zip(record.chunk_ns, log[record.request_id]["write_ns"], strict=True):
            assert stamp >= written - 20_000
    if model == "stale":
        assert outcome.facts is not None
        assert outcome.facts.retried >= 1
    if model == "pairs":
        assert all(r.max_events_per_read >= 2 for r in outcome.records)


def test_running_usage_counts_tokens_exactly(tmp_path: Path, truth: Truth) -> None:
    outcome = run_load(job(tmp_path, truth.url, continuous_usage=True))
    assert {record.token_source for record in outcome.records} == {"continuous_usage"}
    assert all(record.chunk_tokens == [1] * 4 for record in outcome.records)


def test_a_done_stream_that_is_never_closed_is_complete(tmp_path: Path, truth: Truth) -> None:
    outcome = run_load(job(tmp_path, truth.url, n=2, model="open-end", request_timeout_s=0.5))
    assert statuses(outcome) == ["ok", "ok"]


def test_a_silent_server_times_out_or_is_unfinished(tmp_path: Path, truth: Truth) -> None:
    late = run_load(job(tmp_path, truth.url, n=3, model="silent", request_timeout_s=0.3))
    assert statuses(late) == ["timeout"] * 3
    assert all("0.3 s" in record.error for record in late.records)
    drained = run_load(job(tmp_path, truth.url, n=3, model="silent", drain_timeout_s=0.3))
    assert statuses(drained) == ["unfinished"] * 3
    assert all(record.sent_ns is not None and record.http_status is None for record in drained.records)
    assert (drained.status, drained.locust.failures) == ("complete", 3)


def test_a_limit_of_concurrency_makes_requests_wait_not_vanish(tmp_path: Path, truth: Truth) -> None:
    outcome = run_load(job(tmp_path, truth.url, n=8, gap_ms=1, max_concurrency=1))
    assert statuses(outcome) == ["ok"] * 8
    spans = [(r.sent_ns or 0, r.end_ns or 0) for r in outcome.records]
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(spans))
    assert [r.scheduled_ns - outcome.t0_ns for r in outcome.records] == [i * MS for i in range(8)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_refused_connection_fails_every_request_fast(tmp_path: Path) -> None:
    outcome = run_load(job(tmp_path, f"http://127.0.0.1:{free_port()}", n=20))
    assert outcome.status == "complete"
    assert statuses(outcome) == ["error"] * 20
    assert all("refused" in record.error and record.sent_ns is None for record in outcome.records)
    assert outcome.locust.failures == 20


def test_a_server_killed_in_the_middle_fails_the_rest_of_the_plan(tmp_path: Path) -> None:
    server = Truth(tmp_path)
    seen: list[Delta] = []

    def watch(delta: Delta) -> None:
        seen.append(delta)
        server.kill()

    started = time.monotonic()
    outcome = run_load(job(tmp_path, server.url, n=300, gap_ms=10), on_delta=watch)
    assert time.monotonic() - started < 20  # the drain limit alone is 20 s
    assert outcome.status == "complete"
    assert len(outcome.records) == 300
    assert set(statuses(outcome)) == {"ok", "error"}
    assert outcome.records[0].status == "ok"
    assert outcome.records[-1].status == "error"
    assert seen[-1].offered == 300


def test_a_stop_returns_what_there_is(tmp_path: Path, truth: Truth) -> None:
    seen: list[Delta] = []
    asked = job(tmp_path, truth.url, n=2000, gap_ms=20, tokens=40)
    outcome = run_load(asked, on_delta=seen.append, should_stop=lambda: bool(seen))
    assert outcome.status == "interrupted"
    assert 0 < len(outcome.records) < 200
    assert set(statuses(outcome)) == {"ok", "unfinished"}
    assert outcome.facts is not None
    assert [record.index for record in outcome.records] == list(range(len(outcome.records)))


def test_ctrl_c_does_not_lose_the_engine(tmp_path: Path, truth: Truth) -> None:
    seen: list[Delta] = []

    def interrupt(delta: Delta) -> None:
        seen.append(delta)
        if len(seen) == 1:
            signal.raise_signal(signal.SIGINT)

    outcome = run_load(job(tmp_path, truth.url, n=500, gap_ms=10), on_delta=interrupt)
    assert outcome.status == "interrupted"
    assert 0 < len(outcome.records) < 500


def test_an_engine_that_dies_leaves_its_journal_and_last_words(
    tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdbench.load import process

    pids: list[int] = []

    class Watched(process.EngineProcess):
        def __init__(self, asked: Job) -> None:
            super().__init__(asked)
            pids.append(self.pid)

    monkeypatch.setattr("pdbench.load.drive.EngineProcess", Watched)

    def kill(delta: Delta) -> None:
        if delta.ok > 10:
            os.kill(pids[0], signal.SIGKILL)

    outcome = run_load(job(tmp_path, truth.url, n=1000, gap_ms=10), on_delta=kill)
    assert outcome.status == "engine_died"
    assert "-9" in outcome.reason
    assert outcome.facts is None
    assert 0 < len(outcome.records) < 1000


def test_two_runs_in_one_process_and_the_process_stays_itself(tmp_path: Path, truth: Truth) -> None:
    for n in (3, 5):
        outcome = run_load(job(tmp_path, truth.url, n=n))
        assert statuses(outcome) == ["ok"] * n
        assert outcome.locust.requests == n
    assert requests.get(f"{truth.url}/health", timeout=5).json() == {"status": "ok"}
    done = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
    assert done.stdout.strip() == b"1"
    assert socket.socket.__module__ == "socket"  # gevent's patches are off


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base_url": "http://no-such-host.invalid:1"}, "no-such-host"),
        ({"api_key_env": "PD_TEST_NO_SUCH_KEY"}, "PD_TEST_NO_SUCH_KEY"),
    ],
)
def test_a_job_that_cannot_run_is_a_usage_error(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    fields = {"base_url": "http://127.0.0.1:1", **changes}
    with pytest.raises(UsageError, match=says):
        run_load(job(tmp_path, fields.pop("base_url"), **fields))


def test_the_engine_ends_when_its_stdin_closes(tmp_path: Path, truth: Truth) -> None:
    asked = job(tmp_path, truth.url, n=1000, gap_ms=10)
    with subprocess.Popen(
        [sys.executable, "-m", "pdbench.load.engine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as engine:
        assert engine.stdin is not None
        assert engine.stdout is not None
        engine.stdin.write(msgspec.json.encode(asked) + b"\n")
        engine.stdin.flush()
        assert b'"ready"' in engine.stdout.readline()
        engine.stdin.write(b'{"type":"start","t0_ns":%d}\n' % time.monotonic_ns())
        engine.stdin.flush()
        assert b'"delta"' in engine.stdout.readline()
        engine.stdin.close()
        assert engine.wait(timeout=20) == 0
    records = read_journal(asked.journal)
    assert 0 < len(records) < 1000
    assert {record.status for record in records} <= {"ok", "unfinished"}


def test_the_engine_imports_nothing_heavy() -> None:
    code = (
        "import sys, pdbench.load.engine, pdbench.load.steer;"
        "heavy = {'locust', 'gevent', 'numpy', 'pandas', 'scipy', 'torch', 'requests'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"
