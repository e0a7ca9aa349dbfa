"""A round on the master with workers that are played: another host's clock, a death on the way, a refusal."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import pytest

from pdbench.errors import UsageError
from pdbench.load import round as rounds
from pdbench.load.delta import EngineFacts, Final
from pdbench.load.drive import retimed
from pdbench.load.job import Job
from pdbench.load.journal import MAGIC
from pdbench.load.lag import LagSummary
from pdbench.load.messages import (
    EngineReady,
    EngineRefused,
    Go,
    Halt,
    JobPart,
    JournalPart,
    Ping,
    Pong,
    Repace,
    RunDone,
    our_hello,
)  # fmt: skip
from pdbench.load.muster import Member
from pdbench.load.round import Round
from pdbench.measure.records import RequestRecord
from tests.unit.load.test_fleet_parts import job
from tests.unit.test_livestate import delta

FAR_NS = 5_000_000_000
FACTS = EngineFacts(
    clock="kernel", timer="t", dispatch_lag=LagSummary(), client_lag=LagSummary(), cpu_s=1.0, wall_s=1.0,
    connections_opened=1, connections_failed=0, retried=0, late_bodies=0, reads=1, max_events_per_read=1,
    clock_offset_drift_ns=0, python="3", uvloop="1",
)  # fmt: skip


class Played:
    """A muster whose workers answer at once, but to ``Halt``. ``far``: this rank's clock is ahead; ``dies``: it stops
    after t0; ``early``: it dies before it is ready; ``mute``: it answers no ping; ``unready``: nobody is ever ready."""

    def __init__(
        self, far: int = -1, dies: int = -1, refuses: int = -1, early: int = -1, mute: int = -1, unready: bool = False
    ) -> None:
        self.far, self.dies, self.refuses = far, dies, refuses
        self.early, self.mute, self.unready = early, mute, unready
        self.late_ns = 0
        self.edits: list[tuple[int, Repace]] = []
        self.halted: set[int] = set()
        self.listener: Any = None
        stats = SimpleNamespace(
            clear_all=lambda: None, total=SimpleNamespace(num_requests=0, num_failures=0, total_rps=0.0)
        )
        self.runner = SimpleNamespace(stats=stats, environment=SimpleNamespace(stats=stats))
        hello = our_hello()
        boots = ["far" if rank == far else hello.boot for rank in range(2)]
        self.members = [
            Member(str(rank), msgspec.structs.replace(hello, pid=rank, boot=boot)) for rank, boot in enumerate(boots)
        ]
        self.jobs: dict[int, Job] = {}
        self.gone: set[int] = set()
        self.heard: list[Any] = []
        self.said: list[str] = []
        self.forgotten: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def how_gone(self, member: Member) -> str:
        return "it died" if member.hello.pid in self.gone else ""

    def forget(self, member: Member, run: str) -> None:
        assert run == "r"
        self.forgotten.append(member.name)

    def send(self, member: Member, message: Any) -> None:
        rank = member.hello.pid
        self.heard.append(message)
        shift = FAR_NS if rank == self.far else 0
        if isinstance(message, Ping) and rank != self.mute:
            self.listener(member, Pong(message.number, time.monotonic_ns() + shift))
        elif isinstance(message, JobPart) and rank == self.refuses:
            self.listener(member, EngineRefused(message.run, "no key", "--api-key-env", "export it"))
        elif isinstance(message, JobPart):
            self.jobs[rank] = msgspec.json.decode(message.data, type=Job)
            if rank == self.early:
                self.gone.add(rank)
            elif not self.unready:
                self.listener(member, EngineReady(message.run, "kernel"))
        elif isinstance(message, Repace):
            self.edits.append((rank, message))
        elif isinstance(message, Go):
            self._work(member, message)
        elif isinstance(message, Halt):
            self.halted.add(rank)
            gevent.spawn_later(5 * rounds._TICK_S, self._stopped, member, message.run)

    def _stopped(self, member: Member, run: str) -> None:
        if self.listener is not None and member.hello.pid not in self.gone:
            done = Final(stopped=True, offered=0, recorded=0, facts=FACTS)
            self.listener(member, RunDone(run, done, "", []))

    def _work(self, member: Member, message: Go) -> None:
        mine = self.jobs[member.hello.pid]
        dies = member.hello.pid == self.dies
        count = 1 if dies else len(mine)
        data = MAGIC
        for index, offset_ns in list(zip(mine.index, mine.scheduled_ns, strict=True))[:count]:
            due = message.t0_ns + offset_ns
            entry = msgspec.msgpack.encode(
                RequestRecord(
                    index=index, scheduled_ns=due, sent_ns=due + 5, end_ns=due + 9, status="ok",
                    planned_prompt_tokens=1, planned_output_tokens=1, chunk_ns=[due + 9], chunk_tokens=[1],
                )
            )  # fmt: skip
            data += struct.pack("<I", len(entry)) + entry
        if dies:
            self.listener(member, JournalPart(message.run, data + b"torn"))
            self.gone.add(member.hello.pid)
            return
        self.listener(member, JournalPart(message.run, data))
        late = self.late_ns if member.hello.pid == self.far else 0
        told = [one.at_ns for to, one in self.edits if to == member.hello.pid]
        done = Final(
            stopped=False, offered=count, recorded=count, facts=FACTS, retimed=[(at_ns, at_ns + late) for at_ns in told]
        )
        self.listener(member, RunDone(message.run, done, "", []))


def asked(tmp_path: Path, n: int = 7) -> Job:
    return job(n, journal=str(tmp_path / "journal"), base_url="http://10.0.0.1:80")


def test_instants_of_another_host_come_on_our_clock(tmp_path: Path) -> None:
    played = Played(far=1)
    whole = asked(tmp_path)
    outcome = Round(played, played.members, whole).play(None, None)  # type: ignore[arg-type]
    assert outcome.status == "complete"
    assert [record.scheduled_ns - outcome.t0_ns for record in outcome.records] == whole.scheduled_ns
    assert {record.chunk_ns[0] - record.scheduled_ns for record in outcome.records} == {9}
    near, far = outcome.workers
    assert (near.same_clock, near.clock_offset_ns) == (True, 0)
    assert not far.same_clock
    assert abs(far.clock_offset_ns - FAR_NS) <= far.rtt_ns
    assert abs(far.drift_ns) < 1_000_000_000
    assert outcome.facts is not None
    assert outcome.facts.cpu_s == 2.0
    assert outcome.offered == len(whole)
    assert not list(tmp_path.iterdir())


def test_a_death_on_the_way_keeps_what_was_shipped(tmp_path: Path) -> None:
    played = Played(dies=0)
    outcome = Round(played, played.members, asked(tmp_path)).play(None, None)  # type: ignore[arg-type]
    assert (outcome.status, outcome.workers_lost) == ("engine_died", [played.members[0].name])
    assert [record.index for record in outcome.records] == [0, 1, 3, 5]
    assert played.forgotten == outcome.workers_lost
    assert "it died" in outcome.reason
    assert outcome.losses == [f"{played.members[0].name}: it died"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_TICK_S", 0.01)
    monkeypatch.setattr(rounds, "_PING_LIMIT_S", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("played", "stop", "status", "lost"),
    [
        (Played(unready=True), True, "interrupted", []),
        (Played(early=0, unready=True), False, "engine_died", [0]),
        (Played(far=1, mute=1), False, "engine_died", [1]),
        (Played(mute=1), False, "complete", []),  # on our host: its clock is known to be ours
    ],
)
def test_only_who_failed_is_blamed(tmp_path: Path, played: Played, stop: bool, status: str, lost: list[int]) -> None:
    outcome = Round(played, played.members, asked(tmp_path)).play(None, lambda: stop)  # type: ignore[arg-type]
    assert (outcome.status, outcome.workers_lost) == (status, [played.members[rank].name for rank in lost])
    assert set(lost) <= played.halted, "it may live, and know nothing of its loss"
    assert not set(lost) & set(played.jobs) or played.early >= 0, "nothing is handed to one that is lost"


@pytest.mark.usefixtures("quick")
def test_who_is_not_ready_in_time_is_lost_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "READY_LIMIT_S", 0.05)
    played = Played()
    answer = played.send
    monkeypatch.setattr(
        played,
        "send",
        lambda member, said: None if (member.hello.pid, type(said)) == (1, JobPart) else answer(member, said),
    )
    outcome = Round(played, played.members, asked(tmp_path)).play(None, None)  # type: ignore[arg-type]
    assert outcome.workers_lost == [played.members[1].name]
    assert "ready in time" in outcome.reason


def test_no_ping_has_the_number_of_another(tmp_path: Path) -> None:
    played = Played()
    for _ in range(2):
        Round(played, played.members, asked(tmp_path)).play(None, None)  # type: ignore[arg-type]
    numbers = [message.number for message in played.heard if isinstance(message, Ping)]
    assert len(numbers) == len(set(numbers)) > 2 * 2 * 32


def test_a_job_that_a_worker_cannot_run_is_refused_and_the_rest_is_halted(tmp_path: Path) -> None:
    played = Played(refuses=1)
    with pytest.raises(UsageError, match="no key"):
        Round(played, played.members, asked(tmp_path)).play(None, None)  # type: ignore[arg-type]
    assert any(isinstance(message, Halt) for message in played.heard)


def test_a_server_on_our_loopback_is_not_offered_to_other_hosts(tmp_path: Path) -> None:
    played = Played(far=1)
    local = job(4, journal=str(tmp_path / "journal"))
    with pytest.raises(UsageError, match="another host"):
        Round(played, played.members, local)  # type: ignore[arg-type]


def test_an_edit_goes_to_all_workers_at_one_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played, whole = Played(far=1), asked(tmp_path)
    played.late_ns = 700
    whole = msgspec.structs.replace(whole, scheduled_ns=[10_000_000_000 * i for i in range(len(whole))])
    one = Round(played, played.members, whole)  # type: ignore[arg-type]
    assert one.retime(2.0) is None, "there is nothing to edit before t0"
    held: list[tuple[Member, Go]] = []
    work, start = played._work, one._start
    monkeypatch.setattr(played, "_work", lambda member, message: held.append((member, message)))

    def start_and_edit() -> None:
        start()
        assert one.retime(2.0) is not None
        assert one.retime(0.25) is not None
        for member, message in held:
            work(member, message)

    monkeypatch.setattr(one, "_start", start_and_edit)
    outcome = one.play(None, None)
    told = [message for message in played.heard if isinstance(message, Repace)]
    assert [(message.factor, edit.factor) for message, edit in zip(told[::2], outcome.edits, strict=True)] == [
        (2.0, 2.0), (0.25, 0.25)
    ]  # fmt: skip
    near, far = told[0].at_ns, told[1].at_ns
    assert near - outcome.t0_ns + played.late_ns == outcome.edits[0].at_ns, "the last that follows counts"
    assert abs(far - near - FAR_NS) <= outcome.workers[1].rtt_ns, "each on its own clock"
    assert (outcome.status, one.lost) == ("complete", [])
    assert len([message for message in played.heard if isinstance(message, Repace)]) == 4


def test_nothing_is_left_to_edit_when_all_workers_are_lost(tmp_path: Path) -> None:
    played, whole = Played(), asked(tmp_path)
    whole = msgspec.structs.replace(whole, scheduled_ns=[10_000_000_000 * i for i in range(len(whole))])
    one = Round(played, played.members, whole)  # type: ignore[arg-type]
    played._work = lambda *_: None  # type: ignore[method-assign]
    one._start()
    one._deltas.add(0, delta(in_flight=3))
    for post in one._posts:
        one._lose(post, "killed")
        post.sink.close()
    assert one.retime(2.0) is None
    last = one._deltas.take()
    assert last is not None
    assert last.in_flight == 0, "nor is anything in flight"
    assert not any(isinstance(message, Repace) for message in played.heard)


def test_edits_make_a_plan_longer_or_shorter() -> None:
    assert retimed(50, 100, 2.0) == 50
    assert (retimed(200, 100, 2.0), retimed(200, 100, 0.5)) == (150, 300)
