"""The parts of a fleet that can be tested without one: shares, clocks, merging, shipping, handshakes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.cli.worker import split_address
from pdbench.errors import PdbenchError, UsageError, WorkersMissingError
from pdbench.fleetspec import fleet_spec
from pdbench.load.delta import Delta
from pdbench.load.histogram import LiveHistogram
from pdbench.load.job import Job
from pdbench.load.lag import LagSummary
from pdbench.load.merging import DeltaMerger, worst_lag
from pdbench.load.messages import (
    HELLO,
    PART_BYTES,
    REFUSED,
    TALK,
    WELCOME,
    WHO,
    WINDOW_BYTES,
    Counts,
    Go,
    Halt,
    our_hello,
    pack,
    unpack_to_worker,
)  # fmt: skip
from pdbench.load.muster import Muster
from pdbench.load.offset import Offset, estimate, is_same_clock, moved
from pdbench.load.sharing import share
from pdbench.load.ship import JournalSink, JournalTail, Parcel, pieces
from pdbench.load.worker import MASTER_LIMIT_S, Worker
from pdbench.measure.records import RequestRecord
from pdbench.workload.prompts import PromptMaker


def job(n: int, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "base_url": "http://127.0.0.1:1",
        "model": "m",
        "prompts": PromptMaker(salt="s"),
        "index": list(range(n)),
        "scheduled_ns": [i * 1000 for i in range(n)],
        "prompt_tokens": [16 + i for i in range(n)],
        "output_tokens": [4] * n,
        "warmup": [i == 0 for i in range(n)],
        "journal": "j",
        "run_id": "r",
    }
    return Job(**{**fields, **changes})


@pytest.mark.parametrize(
    ("curve", "ranks", "shared"),
    [
        ([(0, 4), (9, 1)], 3, False),
        ([(0, 4), (9, 2)], 3, False),
        ([(0, 4), (9, 2)], 2, True),
        ([(0, 4), (9, 1), (20, 0)], 3, True),
        ([(0, 4), (9, 0), (20, 4)], 3, True),
        ([(0, 1), (9, 2)], 3, True),
        ([(0, 4), (9, 1)], 1, True),
    ],
)
def test_a_closed_loop_is_not_shared_where_a_worker_would_stop_early(
    curve: list[tuple[int, int]], ranks: int, shared: bool
) -> None:
    whole = job(12, concurrency=curve, scheduled_ns=[0] * 12)
    if not shared:
        with pytest.raises(UsageError, match=f"cannot be shared among {ranks}"):
            share(whole, 0, ranks)
        return
    for part in (share(whole, rank, ranks) for rank in range(ranks)):
        assert part is None or part.concurrency[-1][1] > 0 or curve[-1][1] == 0


@settings(max_examples=30)
@given(n=st.integers(1, 40), ranks=st.integers(1, 7), streams=st.integers(0, 9))
def test_shares_are_the_job_dealt_out(n: int, ranks: int, streams: int) -> None:
    closed = {"concurrency": [(0, streams), (5000, streams + 2)], "scheduled_ns": [0] * n} if streams else {}
    whole = job(n, **closed, prompt_ids=[[i] for i in range(n)])
    parts = [share(whole, rank, ranks) for rank in range(ranks)]
    assert all(part.prompt_ids == [[i] for i in part.index] for part in parts if part is not None)
    given = [part for part in parts if part is not None]
    rows = [
        row
        for part in given
        for row in zip(part.index, part.scheduled_ns, part.prompt_tokens, part.warmup, strict=True)
    ]
    assert sorted(rows) == list(zip(whole.index, whole.scheduled_ns, whole.prompt_tokens, whole.warmup, strict=True))
    if streams and len(given) == ranks:
        for step, (at_ns, count) in enumerate(whole.concurrency):
            assert sum(part.concurrency[step][1] for part in given) == count
            assert {part.concurrency[step][0] for part in given} == {at_ns}
    elif not streams and len(given) == ranks > 1:
        assert given[1].index == list(range(1, n, ranks))


def test_a_limit_of_open_requests_is_shared_exactly() -> None:
    parts = [share(job(9, max_concurrency=7), rank, 3) for rank in range(3)]
    assert [part.max_concurrency for part in parts if part] == [3, 2, 2]
    with pytest.raises(UsageError, match="--max-concurrency"):
        share(job(9, max_concurrency=2), 0, 3)


def test_the_quickest_ping_says_the_offset() -> None:
    pings = [(0, 5_000_900, 1_000), (10_000, 5_010_050, 10_100), (20_000, 5_020_000, 24_000)]
    assert estimate(pings) == Offset(5_000_000, 100)
    assert estimate([]) is None


@pytest.mark.parametrize(
    ("offset", "ours", "theirs", "same"),
    [(300, "a", "a", True), (300, "a", "b", False), (5_000_000, "a", "a", False), (0, "", "", False)],
)
def test_one_boot_is_one_clock_unless_it_measures_apart(offset: int, ours: str, theirs: str, same: bool) -> None:
    assert is_same_clock(Offset(offset, 400), ours, theirs) is same


def test_instants_move_and_durations_stay() -> None:
    made = RequestRecord(
        index=0, scheduled_ns=1000, sent_ns=1100, end_ns=None, status="ok", planned_prompt_tokens=1,
        planned_output_tokens=2, chunk_ns=[1500, 1700], chunk_tokens=[1, 1], user_lag_ns=[5, 6],
    )  # fmt: skip
    found = moved(made, 900)
    assert (found.scheduled_ns, found.sent_ns, found.end_ns, found.chunk_ns) == (100, 200, None, [600, 800])
    assert found.user_lag_ns == [5, 6]


def delta(ok: int, ttft_ms: int, lag: float) -> Delta:
    hdr = LiveHistogram()
    hdr.add_ns([ttft_ms * 1_000_000] * ok)
    summary = LagSummary(count=ok, p50_ms=lag, p90_ms=lag, p99_ms=lag, max_ms=lag)
    return Delta(
        t_s=1.0, planned=10, offered=ok, sent=ok, ok=ok, failed=0, in_flight=0, waiting=0, tokens=ok,
        dispatch_lag=summary, client_lag=LagSummary(), ttft_hdr=hdr.encode(), tbt_hdr="", done=[],
    )  # fmt: skip


def test_deltas_of_workers_add_up_to_one() -> None:
    merger = DeltaMerger()
    assert merger.take() is None
    merger.add(0, delta(4, 10, 0.1))
    merger.add(1, delta(6, 30, 0.7))
    first = merger.take()
    assert first is not None
    assert (first.planned, first.ok, first.dispatch_lag.p99_ms, first.dispatch_lag.count) == (20, 10, 0.7, 10)
    merged = LiveHistogram()
    merged.merge(first.ttft_hdr)
    assert merged.count == 10
    assert merged.percentiles_ms(90.0)[0] == pytest.approx(30, rel=0.01)
    merger.add(0, delta(9, 10, 0.1))
    second = merger.take()
    assert second is not None
    assert second.ok == 15, "counts are of the run so far, a silent worker keeps its last"
    assert worst_lag([LagSummary(), LagSummary()]) == LagSummary()


def test_a_lost_worker_has_nothing_in_flight() -> None:
    merger = DeltaMerger()
    merger.lose(0)
    assert merger.take() is None
    merger.add(0, msgspec.structs.replace(delta(4, 10, 0.1), in_flight=3, waiting=2))
    merger.add(1, msgspec.structs.replace(delta(5, 10, 0.1), in_flight=1))
    merger.take()
    merger.lose(0)
    last = merger.take()
    assert last is not None
    assert (last.ok, last.in_flight, last.waiting) == (9, 1, 0)


def test_a_journal_is_shipped_in_windows(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    tail, sink = JournalTail(file), JournalSink(tmp_path / "copy")
    assert tail.next() == b""
    assert tail.complete
    data = bytes(range(256)) * (WINDOW_BYTES // 256 + 5000)
    file.write_bytes(data)
    while sink.size < len(data):
        sent = sink.size
        while part := tail.next():
            assert len(part) <= PART_BYTES
            sink.add(part)
        assert sink.size - sent <= WINDOW_BYTES, "never more than a window without an answer"
        tail.acknowledge(sink.size)
    sink.close()
    assert tail.complete
    assert sink.path.read_bytes() == data


def test_a_parcel_is_whole_or_refused() -> None:
    parcel = Parcel(10)
    assert [parcel.add(piece) for piece in pieces(b"0123456789", 4)] == [None, None, b"0123456789"]
    with pytest.raises(ValueError, match="announced"):
        Parcel(3).add(b"1234")


# ---- handshakes, with a runner that is played


class Runner:
    def __init__(self) -> None:
        self.listeners: dict[str, Any] = {}
        self.sent: list[tuple[str, Any, str | None]] = []
        self.clients: dict[str, Any] = {}
        self.server = SimpleNamespace(port=5557)
        event = SimpleNamespace(add_listener=lambda _: None)
        self.environment = SimpleNamespace(events=SimpleNamespace(heartbeat_received=event))
        self.greenlet = [1]
        self.master_host, self.master_port = "h", 1

    def register_message(self, name: str, listener: Any) -> None:
        self.listeners[name] = listener

    def send_message(self, name: str, data: Any = None, client_id: str | None = None) -> None:
        self.sent.append((name, data, client_id))

    def hears(self, name: str, data: Any, node: str = "n1") -> None:
        self.clients.setdefault(node, SimpleNamespace(state="ready"))
        self.listeners[name](msg=SimpleNamespace(data=data, node_id=node), environment=None)


HI = msgspec.to_builtins(our_hello())


@pytest.mark.parametrize(
    ("hello", "answer", "says"),
    [
        (HI, WELCOME, ""),
        ({**HI, "version": "0.0.1"}, REFUSED, "runs pdbench 0.0.1"),
        ({**HI, "protocol": 99}, REFUSED, "protocol 99"),
        ({"version": "x"}, REFUSED, "not understood"),
        (None, REFUSED, "not understood"),
    ],
)
def test_the_master_takes_its_own_version_only(hello: Any, answer: str, says: str) -> None:
    said: list[str] = []
    runner = Runner()
    muster = Muster(runner, said.append)
    runner.hears(HELLO, hello)
    assert runner.sent[-1][0] == answer
    assert (answer == WELCOME) == bool(muster.present())
    if says:
        assert says in said[-1]
        with pytest.raises(WorkersMissingError, match="0 of 1 workers"):
            muster.gather(1, 0.0)
    runner.hears(TALK, {"pdbench": b"\xc1 nonsense"})  # from a stranger or garbled: no crash


def test_a_missing_worker_is_told_from_one_that_left() -> None:
    runner = Runner()
    muster = Muster(runner, lambda _: None)
    runner.hears(HELLO, HI)
    (member,) = muster.gather(1, 0.0)
    runner.clients["n1"].state = "missing"
    assert "heartbeat" in muster.how_gone(member)
    runner.clients.clear()
    assert "farewell" in muster.how_gone(member)
    runner.clients["stranger"] = SimpleNamespace(state="ready")
    with pytest.raises(WorkersMissingError, match="not pdbench"):
        muster.gather(2, 0.0)
    assert (WHO, None, "stranger") in runner.sent


@pytest.mark.parametrize("word", [(HELLO, HI), (TALK, pack(Counts("r", delta(1, 1, 0.1))))])
def test_a_lost_worker_that_speaks_again_is_told_to_stop(word: tuple[str, Any]) -> None:
    runner = Runner()
    muster = Muster(runner, lambda _: None)
    runner.hears(HELLO, HI)
    (member,) = muster.gather(1, 0.0)
    muster.forget(member, "old")
    runner.hears(*word)
    runner.hears(*word)
    talk = [unpack_to_worker(data) for name, data, node in runner.sent if (name, node) == (TALK, "n1")]
    assert talk == [Halt("old")], "once is enough"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (REFUSED, {"reason": "worker x runs pdbench 0.0.1"}, "0.0.1"),
        (WELCOME, {"version": "9.9", "protocol": 1}, "master runs pdbench 9.9"),
    ],
)
def test_a_worker_that_does_not_fit_ends_with_an_error(name: str, data: Any, says: str) -> None:
    runner = Runner()
    worker = Worker(runner)
    assert runner.sent[0][0] == HELLO
    runner.hears(name, data)
    with pytest.raises(UsageError, match=says):
        worker.serve()


def test_a_message_comes_back_as_it_went() -> None:
    assert unpack_to_worker(pack(Go("r", 5))) == Go("r", 5)
    with pytest.raises(msgspec.MsgspecError):
        unpack_to_worker({"pdbench": "text"})


@pytest.mark.parametrize(
    ("text", "found"),
    [("host", ("host", 5557)), ("10.0.0.5:80", ("10.0.0.5", 80)), ("[::1]:81", ("::1", 81)), ("::1", ("::1", 5557))],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert split_address(text) == found


@pytest.mark.parametrize("text", ["", ":5", "host:", "host:x", "host:70000", "http://host:1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="--master"):
        split_address(text)


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ((2, 2, None, None), "--expect-workers"),
        ((None, 2, "0.0.0.0", None), "--bind"),
        ((None, None, None, 5), "--port"),
    ],
)
def test_options_that_contradict_each_other(asked: Any, where: str) -> None:
    with pytest.raises(UsageError, match=where):
        fleet_spec(asked[0], asked[1], asked[2], asked[3], 60.0)
    assert fleet_spec(None, None, None, None, 60.0) is None


def test_a_silent_master_has_vanished() -> None:
    worker = Worker(Runner())
    worker._heard -= MASTER_LIMIT_S + 1
    with pytest.raises(PdbenchError, match="vanished") as raised:
        worker.serve()
    assert raised.value.exit_code == 1
